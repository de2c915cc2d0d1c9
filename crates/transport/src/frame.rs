//! Between [`Message`]s and the frames of `cribwork/peer.proto`.

use cribwork_types::{RangeId, ReplicaId};

use crate::options::FRAME_MESSAGES_MAX;
use crate::{Class, Message, TransportError, TransportOptions};
use cribwork_proto::cribwork::peer::{Frame, PeerMessage};

/// Builds a frame; payloads are shared, not copied.
pub(crate) fn encode(sequence: u64, messages: Vec<Message>) -> Frame {
    let messages = messages.into_iter().map(|message| PeerMessage {
        range: message.range.get(),
        from: message.from.get(),
        to: message.to.get(),
        kind: message.kind.into(),
        call: message.call,
        payload: message.payload,
    });
    Frame { sequence, messages: messages.collect() }
}

/// Checks a frame that should be number `expected` and takes its messages out.
///
/// # Errors
/// [`TransportError::Protocol`] if no correct sender would have sent it.
pub(crate) fn decode(frame: Frame, expected: u64) -> Result<Vec<Message>, TransportError> {
    let violation = |why| Err(TransportError::Protocol { why });
    if frame.sequence != expected {
        return violation("a frame out of sequence");
    }
    if frame.messages.is_empty() {
        return violation("a frame without messages");
    }
    if frame.messages.len() > FRAME_MESSAGES_MAX {
        return violation("a frame with too many messages");
    }
    frame.messages.into_iter().map(decode_message).collect()
}

fn decode_message(message: PeerMessage) -> Result<Message, TransportError> {
    if message.payload.len() > TransportOptions::payload_bytes_max(Class::Data) {
        return Err(TransportError::Protocol { why: "a message over the size limit" });
    }
    let kind = u8::try_from(message.kind)
        .map_err(|_| TransportError::Protocol { why: "a kind that is no byte" })?;
    Ok(Message {
        range: RangeId(message.range),
        from: ReplicaId(message.from),
        to: ReplicaId(message.to),
        kind,
        call: message.call,
        payload: message.payload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::lanes::cost;

    fn any_message() -> impl Strategy<Value = Message> {
        let ids = (any::<u64>(), any::<u64>(), any::<u64>());
        let rest = (any::<u8>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300));
        (ids, rest).prop_map(|((range, from, to), (kind, call, payload))| Message {
            range: range.into(),
            from: from.into(),
            to: to.into(),
            kind,
            call,
            payload: payload.into(),
        })
    }

    proptest! {
        #[test]
        fn frames_round_trip_within_their_estimated_size(
            sequence in 1..u64::MAX,
            messages in proptest::collection::vec(any_message(), 1..20),
        ) {
            let bytes = encode(sequence, messages.clone()).encode_to_vec();
            let estimate: usize = messages.iter().map(cost).sum();
            prop_assert!(bytes.len() <= estimate, "{} bytes, estimated {estimate}", bytes.len());
            let frame = Frame::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(decode(frame, sequence), Ok(messages));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::decode(bytes.as_slice()) {
                let _ = decode(frame, 1);
            }
        }
    }

    #[test]
    fn refuses_what_no_correct_sender_sends() {
        let message = PeerMessage { kind: 1, ..PeerMessage::default() };
        let frame = |sequence, messages| Frame { sequence, messages };
        assert!(decode(frame(1, vec![message.clone()]), 1).is_ok());
        assert!(decode(frame(2, vec![message.clone()]), 1).is_err());
        assert!(decode(frame(1, vec![]), 1).is_err());
        assert!(decode(frame(1, vec![message.clone(); FRAME_MESSAGES_MAX + 1]), 1).is_err());
        assert!(decode(frame(1, vec![PeerMessage { kind: 256, ..message }]), 1).is_err());
    }
}
