//! Messages that are still arriving: how much of them the node holds, over all connections.
//!
//! ```text
//!  HTTP/2 stream --> Arriving (this module) --> tonic, which gathers a message until it is whole
//!                       | bytes of the message so far, if it is not small
//!                       v
//!                    Intake: the sum; over the bound, the message that began first is given up
//! ```
//!
//! A client may announce a message of many megabytes, send most of it, and then nothing, on thousands of
//! streams at a time. tonic keeps what has come. Here it is counted, and when there is too much,
//! the oldest message is refused: one that is sent in earnest is whole in a moment and therefore young.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use cribwork_transport::PeerAddress;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use crate::guests::{Guest, OpenRequest};

/// Bytes of unfinished messages that the node holds: one of the largest, and many of usual size.
const UNFINISHED_BYTES_MAX: usize = 24 << 20;
/// Up to this much of a message is not counted: most messages come in one piece, and the number of open
/// requests bounds the rest.
const SMALL_BYTES: usize = 4 * 1024;
/// What precedes a message in gRPC: a flag, and the length in four bytes.
const PREFIX_BYTES: usize = 5;

/// The connection that a request came in on; its connect info.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) address: PeerAddress,
    pub(crate) guest: Arc<Guest>,
}

/// Unfinished messages of all connections.
#[derive(Default)]
pub(crate) struct Intake(Mutex<Unfinished>);

#[derive(Default)]
struct Unfinished {
    next: u64,
    bytes: usize,
    /// In the order in which they began.
    messages: BTreeMap<u64, (usize, CancellationToken)>,
}

impl Intake {
    /// Puts the count in the way of a request's body.
    pub(crate) fn watch(self: &Arc<Self>, mut request: Request<Body>) -> Request<Body> {
        let visitor = request.extensions_mut().remove::<Visitor>();
        if let Some(visitor) = &visitor {
            request.extensions_mut().insert(visitor.address);
        }
        if request.body().is_end_stream() {
            return request;
        }
        let (refused, open) = match visitor {
            None => (None, None),
            Some(visitor) => match visitor.guest.open_request() {
                None => (Some("too many open requests on this connection"), None),
                open => (None, open),
            },
        };
        request.map(|body| {
            Body::new(Arriving {
                body,
                framing: Framing::default(),
                counted: None,
                intake: self.clone(),
                refused,
                _open: open,
            })
        })
    }

    fn begin(self: &Arc<Self>) -> Counted {
        let give_up = CancellationToken::new();
        let mut unfinished = self.0.lock();
        unfinished.next += 1;
        let number = unfinished.next;
        unfinished.messages.insert(number, (0, give_up.clone()));
        let given_up = Box::pin(give_up.cancelled_owned());
        Counted { intake: self.clone(), number, given_up }
    }

    /// Message `number` has grown to `bytes`.
    fn set(&self, number: u64, bytes: usize) {
        let mut unfinished = self.0.lock();
        let Some((counted, _)) = unfinished.messages.get_mut(&number) else { return };
        let before = std::mem::replace(counted, bytes);
        unfinished.bytes = unfinished.bytes - before + bytes;
        while unfinished.bytes > UNFINISHED_BYTES_MAX {
            let Some((_, (bytes, give_up))) = unfinished.messages.pop_first() else { return };
            unfinished.bytes -= bytes;
            give_up.cancel();
        }
    }

    fn end(&self, number: u64) {
        let mut unfinished = self.0.lock();
        if let Some((bytes, _)) = unfinished.messages.remove(&number) {
            unfinished.bytes -= bytes;
        }
    }
}

/// A message that is counted, until it is whole.
struct Counted {
    intake: Arc<Intake>,
    number: u64,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.intake.end(self.number);
    }
}

/// Follows gRPC's framing, without keeping any of it.
#[derive(Default)]
struct Framing {
    prefix: Vec<u8>,
    /// Bytes of the message, once its prefix is known.
    left: Option<usize>,
    /// Bytes of the unfinished message that have come.
    held: usize,
}

impl Framing {
    /// Takes in what came; gives the bytes of the message that is unfinished after it.
    fn take(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            let Some(left) = self.left else {
                let count = (PREFIX_BYTES - self.prefix.len()).min(bytes.len());
                self.prefix.extend_from_slice(&bytes[..count]);
                bytes.advance(count);
                self.held += count;
                if let [_, a, b, c, d] = self.prefix[..] {
                    self.left = Some(u32::from_be_bytes([a, b, c, d]) as usize);
                    self.prefix.clear();
                    self.finish_if_whole();
                }
                continue;
            };
            let count = left.min(bytes.len());
            bytes.advance(count);
            self.held += count;
            self.left = Some(left - count);
            self.finish_if_whole();
        }
        self.held
    }

    fn finish_if_whole(&mut self) {
        if self.left == Some(0) {
            self.left = None;
            self.held = 0;
        }
    }
}

/// A request's body under way.
struct Arriving {
    body: Body,
    framing: Framing,
    counted: Option<Counted>,
    intake: Arc<Intake>,
    /// Why nothing of it is taken: its service hears so at once, and holds nothing for it.
    refused: Option<&'static str>,
    _open: Option<OpenRequest>,
}

impl Arriving {
    fn take(&mut self, bytes: &[u8]) {
        let held = self.framing.take(bytes);
        if held <= SMALL_BYTES {
            self.counted = None;
            return;
        }
        let counted = self.counted.get_or_insert_with(|| self.intake.begin());
        self.intake.set(counted.number, held);
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match self.refused {
            Some(_) => Poll::Pending,
            None => Pin::new(&mut self.body).poll_frame(context),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.take(bytes);
        }
        let given_up = self.counted.as_mut().map(|counted| counted.given_up.as_mut());
        if given_up.is_some_and(|given_up| given_up.poll(context).is_ready()) {
            self.refused = Some("too many unfinished messages: this one was the first to begin");
        }
        if let Some(why) = self.refused.take() {
            self.counted = None;
            self.body = Body::empty();
            return Poll::Ready(Some(Err(Status::resource_exhausted(why))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let prefix = [&[0][..], &(length as u32).to_be_bytes()].concat();
        [prefix, vec![7; length]].concat()
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let stream = [message(3), message(0), message(300), message(1)].concat();
        for piece in [1, 2, 3, 7, 100, stream.len()] {
            let mut framing = Framing::default();
            let held: Vec<usize> = stream.chunks(piece).map(|bytes| framing.take(bytes)).collect();
            assert_eq!(held.last(), Some(&0), "pieces of {piece}: all is whole");
            assert!(held.iter().all(|held| *held < 305), "pieces of {piece}: {held:?}");
        }
        let mut framing = Framing::default();
        assert_eq!(framing.take(&stream[..8 + 5 + 5 + 100]), 105);
        assert_eq!(framing.take(&[0; 199]), 304);
        assert_eq!(framing.take(&[0; 1]), 0);
    }

    #[test]
    fn the_message_that_began_first_is_given_up() {
        let intake = Arc::new(Intake::default());
        let half = UNFINISHED_BYTES_MAX / 2;
        let given_up = |message: &Counted| {
            let unfinished = message.intake.0.lock();
            !unfinished.messages.contains_key(&message.number)
        };
        let [first, second, third] = [(); 3].map(|()| intake.begin());
        intake.set(second.number, half);
        intake.set(first.number, half);
        assert!(!given_up(&first) && !given_up(&second));
        intake.set(third.number, 1);
        assert!(given_up(&first) && !given_up(&second) && !given_up(&third));
        // What was given up and grows all the same counts no more.
        intake.set(first.number, 2 * half);
        drop(first);
        assert_eq!(intake.0.lock().bytes, half + 1);
        drop((second, third));
        assert_eq!(intake.0.lock().bytes, 0);
    }
}
