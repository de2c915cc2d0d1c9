//! Answers: what all of them have in common, and where each has room for an error.

use cribwork_proto::{errorpb, kvrpcpb};
use tonic::Status;

use crate::kv::failure::Failure;

/// Where an answer has room for an error that is no region error.
pub(crate) enum Slot<'a> {
    /// A text.
    Text(&'a mut String),
    /// One key error.
    Key(&'a mut Option<kvrpcpb::KeyError>),
    /// Many of them.
    Keys(&'a mut Vec<kvrpcpb::KeyError>),
    /// Nowhere but in a pair.
    Pairs(&'a mut Vec<kvrpcpb::KvPair>),
}

/// The answer to a call.
pub(crate) trait Answer: Default + Send + 'static {
    /// The region error.
    fn region_error(&mut self) -> &mut Option<errorpb::Error>;
    /// Where other errors go.
    fn slot(&mut self) -> Slot<'_>;
    /// Bytes of values in it, roughly: answers are gathered up to a size.
    fn weight(&self) -> usize {
        0
    }

    /// The answer to a call that failed, as a stream carries it: without a status of its own.
    fn of(failure: Failure) -> Self {
        let mut answer = Self::default();
        if let Failure::Region(error) = failure {
            *answer.region_error() = Some(*error);
            return answer;
        }
        match answer.slot() {
            Slot::Text(text) => *text = failure.into_text(),
            Slot::Key(slot) => *slot = Some(failure.into_key_error()),
            Slot::Keys(errors) => errors.push(failure.into_key_error()),
            Slot::Pairs(pairs) => {
                let error = Some(Box::new(failure.into_key_error()));
                pairs.push(kvrpcpb::KvPair { error, ..Default::default() });
            }
        }
        answer
    }

    /// The answer to a unary call that failed.
    ///
    /// # Errors
    /// A status if the outcome of a transaction's command is unknown: clients take a key error for a
    /// certain failure, and a status for doubt, and look the transaction up. A raw command says so in
    /// its text: clients repeat on any status, and a repeated compare-and-swap would fail on itself.
    fn of_unary(failure: Failure) -> Result<Self, Status> {
        let by_key = matches!(Self::default().slot(), Slot::Key(_) | Slot::Keys(_));
        match failure {
            Failure::Undetermined(_) if by_key => Err(Status::unknown(failure.into_text())),
            failure => Ok(Self::of(failure)),
        }
    }
}

/// What a pair costs beside its key and value, at least: its framing on the wire is about half of
/// that, its place in memory about twice.
const PAIR_BYTES: usize = 32;

/// Bytes of pairs in an answer, never less than they take on the wire.
pub(crate) fn pairs_bytes(pairs: &[kvrpcpb::KvPair]) -> usize {
    let bytes = |pair: &kvrpcpb::KvPair| {
        let error = pair.error.as_ref().map_or(0, prost::Message::encoded_len);
        pair.key.len() + pair.value.len() + error + PAIR_BYTES
    };
    pairs.iter().map(bytes).sum()
}

macro_rules! answers {
    ($($slot:ident($field:ident): $($name:ident $(= $weight:expr)?),* ;)*) => {$($(
        impl Answer for kvrpcpb::$name {
            fn region_error(&mut self) -> &mut Option<errorpb::Error> {
                &mut self.region_error
            }

            fn slot(&mut self) -> Slot<'_> {
                Slot::$slot(&mut self.$field)
            }

            $(fn weight(&self) -> usize {
                let weigh: fn(&Self) -> usize = $weight;
                weigh(self)
            })?
        }
    )*)*};
}

answers! {
    Text(error):
        RawGetResponse = |answer| answer.value.len(),
        RawPutResponse,
        RawBatchPutResponse,
        RawDeleteResponse,
        RawBatchDeleteResponse,
        RawDeleteRangeResponse,
        RawGetKeyTtlResponse,
        RawCasResponse = |answer| answer.previous_value.len(),
        RawChecksumResponse,
        RawCoprocessorResponse,
        DeleteRangeResponse;
    Key(error):
        GetResponse = |answer| answer.value.len(),
        BatchGetResponse = |answer| pairs_bytes(&answer.pairs),
        ScanResponse = |answer| pairs_bytes(&answer.pairs),
        CommitResponse,
        CleanupResponse,
        BatchRollbackResponse,
        CheckTxnStatusResponse,
        TxnHeartBeatResponse,
        CheckSecondaryLocksResponse,
        ScanLockResponse = |answer| answer.locks.iter().map(|lock| 2 * lock.key.len() + 64).sum(),
        ResolveLockResponse,
        GcResponse;
    Keys(errors):
        PrewriteResponse,
        PessimisticLockResponse,
        PessimisticRollbackResponse,
        SplitRegionResponse;
    Pairs(pairs):
        RawBatchGetResponse = |answer| pairs_bytes(&answer.pairs);
    Pairs(kvs):
        RawScanResponse = |answer| pairs_bytes(&answer.kvs),
        RawBatchScanResponse = |answer| pairs_bytes(&answer.kvs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_slot_takes_an_error_and_a_region_error_stands_alone() {
        let refused = || Failure::Refused("no".into());
        assert_eq!(kvrpcpb::RawPutResponse::of(refused()).error, "no");
        assert_eq!(kvrpcpb::GetResponse::of(refused()).error.unwrap().abort, "no");
        assert_eq!(kvrpcpb::PrewriteResponse::of(refused()).errors[0].abort, "no");
        let pairs = kvrpcpb::RawScanResponse::of(refused()).kvs;
        assert_eq!(pairs[0].error.as_ref().unwrap().abort, "no");
        let region = kvrpcpb::GetResponse::of(crate::kv::failure::busy("full", 1));
        assert!(region.region_error.is_some() && region.error.is_none());
    }

    #[test]
    fn doubt_about_a_transaction_is_a_status_and_nothing_else_is() {
        let lost = || Failure::Undetermined("lost".into());
        let status = kvrpcpb::CommitResponse::of_unary(lost()).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unknown);
        assert!(status.message().starts_with(crate::kv::UNDETERMINED));
        let answer = kvrpcpb::RawCasResponse::of_unary(lost()).unwrap();
        assert!(answer.error.starts_with(crate::kv::UNDETERMINED), "not repeated blindly");
        let refused = kvrpcpb::RawScanResponse::of_unary(Failure::Refused("no".into())).unwrap();
        assert_eq!(refused.kvs[0].error.as_ref().unwrap().abort, "no");
    }
}
