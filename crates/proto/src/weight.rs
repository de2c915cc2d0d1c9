//! What a message will take in memory once it is decoded, found by walking over its bytes.
//!
//! An element of a repeated field takes two bytes on the wire if it is empty, and several hundred
//! decoded, because a struct has room for all that it may hold. So a message of 16 MiB, which is
//! allowed, could become gigabytes. The walk follows the descriptors and adds up what repeated
//! fields will hold; what a message holds once lies in its parent.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::FILE_DESCRIPTOR_SET;

/// Bytes up to which elements of repeated fields may grow in memory: the most pairs that one request may
/// name ([`cribwork_types::limits::BATCH_KEYS_MAX`]) with room to spare.
pub const DECODED_BYTES_MAX: usize = 32 << 20;

/// Smaller messages are decoded without a look: at worst they become some megabytes, and most requests
/// are small.
const UNCHECKED_BYTES: usize = 8 * 1024;
/// Deeper messages are not followed; prost refuses them.
const DEPTH_MAX: usize = 100;

/// Fields that the build script puts into boxes.
const BOXED: &[(&str, &str)] = &[("kvrpcpb.KvPair", "error")];

/// Bytes of a field that is bytes or text, of a list, of a boxed message and of a number.
const TEXT_BYTES: usize = 32;
const LIST_BYTES: usize = 24;
const NUMBER_BYTES: usize = 8;

/// A message that would take too much memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{message}: decoded, it would take more than {DECODED_BYTES_MAX} bytes: send fewer elements"
)]
pub(crate) struct TooHeavy {
    message: String,
}

/// Looks at a message of type `M`. Answers are not bounded: whoever gets one has asked for it.
pub(crate) fn check<M: Name>(bytes: &[u8]) -> Result<(), TooHeavy> {
    if bytes.len() <= UNCHECKED_BYTES || M::NAME.ends_with("Response") {
        return Ok(());
    }
    let name = M::full_name();
    match weight(&name, bytes) {
        0..=DECODED_BYTES_MAX => Ok(()),
        _ => Err(TooHeavy { message: name }),
    }
}

/// What repeated fields of the message will take; of a damaged one, those before the damage, up to
/// where prost stops too.
pub(crate) fn weight(message: &str, bytes: &[u8]) -> usize {
    match SCHEMA.names.get(message) {
        Some(kind) => SCHEMA.walk(*kind, bytes, 0),
        None => 0,
    }
}

/// What to do with a field.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// A message that its parent holds.
    One(usize),
    /// A message in a box of its own.
    Boxed(usize),
    /// Messages in a list.
    Many(usize),
    /// Bytes or texts in a list.
    Texts,
    /// Numbers in a list.
    Numbers,
}

struct Kind {
    fields: HashMap<u32, Field>,
    /// Size of the struct.
    bytes: usize,
}

struct Schema {
    names: HashMap<String, usize>,
    kinds: Vec<Kind>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
    let mut messages = Vec::new();
    for file in files.file {
        for message in file.message_type {
            collect(file.package.as_deref().unwrap_or_default(), message, &mut messages);
        }
    }
    Schema::new(&messages)
});

/// Lists a message and those declared inside it, by full name.
fn collect(scope: &str, message: DescriptorProto, all: &mut Vec<(String, DescriptorProto)>) {
    let name = format!("{scope}.{}", message.name());
    for inner in &message.nested_type {
        collect(&name, inner.clone(), all);
    }
    all.push((name, message));
}

impl Schema {
    fn new(messages: &[(String, DescriptorProto)]) -> Self {
        let names: HashMap<String, usize> =
            messages.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        let inner = |field: &FieldDescriptorProto| {
            names.get(field.type_name().trim_start_matches('.')).copied()
        };
        let kind = |(name, message): &(String, DescriptorProto)| {
            let fields = message.field.iter().filter_map(|field| {
                let many = field.label() == Label::Repeated;
                let what = match (field.r#type(), inner(field)) {
                    (Type::Message | Type::Group, Some(kind)) if many => Field::Many(kind),
                    (Type::Message | Type::Group, Some(kind)) => {
                        let is_boxed = BOXED.contains(&(name.as_str(), field.name()));
                        if is_boxed { Field::Boxed(kind) } else { Field::One(kind) }
                    }
                    (Type::Bytes | Type::String, _) if many => Field::Texts,
                    _ if many => Field::Numbers,
                    _ => return None,
                };
                Some((field.number() as u32, what))
            });
            Kind { fields: fields.collect(), bytes: 0 }
        };
        let mut schema = Self { kinds: messages.iter().map(kind).collect(), names };
        for at in 0..messages.len() {
            schema.kinds[at].bytes = schema.size(messages, at, 0);
        }
        schema
    }

    /// An upper bound of the struct's size: all fields side by side, one of each choice.
    fn size(&self, messages: &[(String, DescriptorProto)], at: usize, depth: usize) -> usize {
        // A message that holds itself does so in a box.
        if depth > 8 {
            return NUMBER_BYTES;
        }
        let (mut bytes, mut choices) = (0, HashMap::new());
        for field in &messages[at].1.field {
            let own = match self.kinds[at].fields.get(&(field.number() as u32)) {
                Some(Field::One(kind)) => NUMBER_BYTES + self.size(messages, *kind, depth + 1),
                Some(Field::Boxed(_)) => NUMBER_BYTES,
                Some(_) => LIST_BYTES,
                None => own_bytes(field.r#type()),
            };
            match field.oneof_index {
                Some(choice) => {
                    let most: &mut usize = choices.entry(choice).or_default();
                    *most = own.max(*most);
                }
                None => bytes += own,
            }
        }
        let choices: usize = choices.values().map(|most| most + NUMBER_BYTES).sum();
        (bytes + choices).next_multiple_of(NUMBER_BYTES)
    }

    fn walk(&self, kind: usize, bytes: &[u8], depth: usize) -> usize {
        let (mut rest, mut weight) = (bytes, 0_usize);
        while let Some((number, value)) = next_field(&mut rest).filter(|_| depth < DEPTH_MAX) {
            if matches!(value, Value::Group) {
                // Nobody sends one, except to hide what comes behind it from this walk.
                return usize::MAX;
            }
            let Some(field) = self.kinds[kind].fields.get(&number) else { continue };
            weight = weight.saturating_add(match (*field, value) {
                (Field::One(inner), Value::Bytes(bytes)) => self.walk(inner, bytes, depth + 1),
                (Field::Many(inner) | Field::Boxed(inner), Value::Bytes(bytes)) => {
                    self.kinds[inner].bytes.saturating_add(self.walk(inner, bytes, depth + 1))
                }
                (Field::Texts, Value::Bytes(bytes)) => TEXT_BYTES + bytes.len(),
                // Packed: a number takes at least a byte.
                (Field::Numbers, Value::Bytes(bytes)) => NUMBER_BYTES * bytes.len(),
                (_, Value::Number | Value::Group) => NUMBER_BYTES,
            });
            if weight > DECODED_BYTES_MAX {
                break;
            }
        }
        weight
    }
}

/// Bytes that a field takes in its message.
fn own_bytes(field: Type) -> usize {
    match field {
        Type::Bytes => TEXT_BYTES,
        Type::String => LIST_BYTES,
        Type::Bool => 1,
        Type::Int32 | Type::Uint32 | Type::Sint32 | Type::Fixed32 | Type::Enum => 4,
        _ => NUMBER_BYTES,
    }
}

enum Value<'b> {
    Number,
    Bytes(&'b [u8]),
    /// A form of old protobuf that this protocol does not have. prost skips it and reads on.
    Group,
}

/// Takes the next field off the front; none at the end, or where the bytes are no protobuf.
fn next_field<'b>(rest: &mut &'b [u8]) -> Option<(u32, Value<'b>)> {
    if rest.is_empty() {
        return None;
    }
    let tag = prost::encoding::decode_varint(rest).ok()?;
    let number = u32::try_from(tag >> 3).ok()?;
    let value = match tag & 7 {
        0 => {
            prost::encoding::decode_varint(rest).ok()?;
            Value::Number
        }
        1 => take(rest, 8).map(|_| Value::Number)?,
        2 => {
            let length = prost::encoding::decode_varint(rest).ok()?;
            Value::Bytes(take(rest, usize::try_from(length).ok()?)?)
        }
        5 => take(rest, 4).map(|_| Value::Number)?,
        3 => Value::Group,
        _ => return None,
    };
    Some((number, value))
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use cribwork_types::limits::{BATCH_KEYS_MAX, MESSAGE_BYTES_MAX};

    use super::*;
    use crate::cribwork::peer::{Frame, PeerMessage};
    use crate::kvrpcpb::{KvPair, Mutation, PrewriteRequest, RawBatchPutRequest};
    use crate::tikvpb::{BatchCommandsRequest, batch_commands_request};

    #[test]
    fn structs_are_not_larger_than_assumed() {
        fn assumed<M: Name>() -> (usize, usize) {
            (SCHEMA.kinds[SCHEMA.names[&M::full_name()]].bytes, size_of::<M>())
        }
        let sizes = [
            assumed::<KvPair>(),
            assumed::<Mutation>(),
            assumed::<PeerMessage>(),
            assumed::<batch_commands_request::Request>(),
        ];
        for (assumed, real) in sizes {
            assert!((real..2 * real).contains(&assumed), "{sizes:?}");
        }
    }

    #[test]
    fn what_limits_allow_is_light_enough() {
        let names = ["kvrpcpb.KvPair", "kvrpcpb.Mutation", "kvrpcpb.KeyRange"];
        let sizes = names.map(|name| SCHEMA.kinds[SCHEMA.names[name]].bytes);
        assert!(sizes.iter().all(|size| *size <= 128), "{sizes:?}");
        let pair = KvPair { key: vec![7; 8].into(), value: vec![7; 8].into(), ..KvPair::default() };
        let most = RawBatchPutRequest { pairs: vec![pair; BATCH_KEYS_MAX], ..Default::default() };
        check::<RawBatchPutRequest>(&most.encode_to_vec()).unwrap();
        let mutation = Mutation { key: vec![7; 8].into(), ..Mutation::default() };
        let mutations = vec![mutation; BATCH_KEYS_MAX];
        let most = PrewriteRequest { mutations, ..Default::default() };
        check::<PrewriteRequest>(&most.encode_to_vec()).unwrap();
    }

    #[test]
    fn empty_elements_without_end_are_refused() {
        // The tag of the repeated field and a length of zero, again and again.
        let flood = |tag: u8| [tag, 0].repeat(MESSAGE_BYTES_MAX / 2);
        assert!(check::<BatchCommandsRequest>(&flood(0x0A)).is_err());
        assert!(check::<RawBatchPutRequest>(&flood(0x12)).is_err());
        assert!(check::<PrewriteRequest>(&flood(0x12)).is_err());
        assert!(check::<Frame>(&flood(0x12)).is_err());
        // The same one level down, and behind what prost skips.
        let mut nested = vec![0x0A, 0x85, 0x80, 0x80, 0x08, 0x1A, 0x80, 0x80, 0x80, 0x08];
        nested.extend_from_slice(&flood(0x12));
        let group = [&[0x7B, 0x7C][..], &flood(0x0A)].concat();
        for bytes in [nested, group] {
            let why = check::<BatchCommandsRequest>(&bytes).unwrap_err().to_string();
            assert!(why.contains("BatchCommandsRequest"), "{why}");
        }
    }
}
