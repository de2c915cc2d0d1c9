//! Hostile bytes for what peers send: frames, and the metadata that a stream opens with.

use cribwork_fuzz::{Shape, target};
use cribwork_proto::cribwork::peer::Frame;
use cribwork_types::{ClusterId, StoreId};
use prost::Message as _;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};

use crate::handshake::Hello;
use crate::{Message, PROTOCOL_VERSION, PeerIdentity, frame};

fn message(kind: u8, payload: &'static [u8]) -> Message {
    let (range, from, to) = (7.into(), 8.into(), 9.into());
    Message { range, from, to, kind, call: 300, payload: payload.into() }
}

/// A decoded message takes some ninety bytes, an empty one two bytes of its frame.
const MEMORY_PER_BYTE: usize = 160;

#[test]
fn frames() {
    let one = frame::encode(1, vec![message(1, b"payload")]);
    let many = frame::encode(1, vec![message(0, b""), message(255, &[7; 300]), message(3, b"x")]);
    let seeds = [one.encode_to_vec(), many.encode_to_vec()];
    target("frames").seeds(seeds).memory_per_byte(MEMORY_PER_BYTE).run(|bytes| {
        let decoded = match Frame::decode(bytes) {
            Ok(frame) => frame::decode(frame, 1).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Ok(messages) = &decoded {
            let again = Frame::decode(&*frame::encode(1, messages.clone()).encode_to_vec());
            assert_eq!(frame::decode(again.unwrap(), 1).as_ref(), Ok(messages));
        }
        Shape::decoded(&decoded, Vec::len)
    });
}

/// Lines `key: value`, as they come in the headers of a request.
fn metadata(text: &[u8]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (key, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let (Ok(key), Ok(value)) = (AsciiMetadataKey::from_bytes(key), value.try_into()) {
            metadata.append(key, value);
        }
    }
    metadata
}

#[test]
fn handshakes() {
    let own = PeerIdentity { cluster: ClusterId(u64::MAX), store: StoreId(2) };
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        cluster: own.cluster,
        from: StoreId(1),
        to: own.store,
        incarnation: 7,
        attempt: 3,
    };
    let mut written = MetadataMap::new();
    hello.write(&mut written);
    let mut seed = Vec::new();
    for pair in written.clone().into_headers().iter() {
        seed.extend_from_slice(pair.0.as_str().as_bytes());
        seed.push(b':');
        seed.extend_from_slice(pair.1.as_bytes());
        seed.push(b'\n');
    }
    assert_eq!(Hello::read(&metadata(&seed)), Ok(hello));
    let target = target("handshakes").seed(seed).memory_per_byte(MEMORY_PER_BYTE);
    target.words(["-1", "18446744073709551616"]).run(|bytes| {
        let read = Hello::read(&metadata(bytes));
        let checked = read.and_then(|hello| hello.check(own).map(|()| hello));
        if let Ok(hello) = &checked {
            assert_eq!((hello.cluster, hello.to), (own.cluster, own.store));
            let mut again = MetadataMap::new();
            hello.write(&mut again);
            assert_eq!(Hello::read(&again), Ok(*hello));
        }
        // Errors name what was sent: by kind only, or every number would be a shape.
        Shape::decoded(&checked.map_err(|refusal| refusal.reason()), |_| 0)
    });
}
