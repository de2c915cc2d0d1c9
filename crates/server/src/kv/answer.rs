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
                let error = Some(failure.into_key_error());
                pairs.push(kvrpcpb::KvPair { error, ..Default::default() });
            }
        }
        answer
    }

    /// The answer to a unary call that failed.
    ///
    /// # Errors
    /// A status if the outcome is unknown, or if the answer has no room for the error.
    fn of_unary(failure: Failure) -> Result<Self, Status> {
        if matches!(failure, Failure::Undetermined(_)) {
            return Err(Status::unknown(failure.into_text()));
        }
        let roomless = matches!(Self::default().slot(), Slot::Pairs(_));
        match failure {
            Failure::Refused(text) if roomless => Err(Status::invalid_argument(text)),
            Failure::Internal(text) if roomless => Err(Status::internal(text)),
            failure => Ok(Self::of(failure)),
        }
    }
}

/// Bytes of keys and values in pairs.
pub(crate) fn pairs_bytes(pairs: &[kvrpcpb::KvPair]) -> usize {
    pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum()
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
    fn unary_answers_fall_back_to_a_status() {
        let lost = || Failure::Undetermined("lost".into());
        let status = kvrpcpb::RawPutResponse::of_unary(lost()).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unknown);
        assert!(status.message().starts_with(crate::kv::UNDETERMINED));
        let refused = kvrpcpb::RawScanResponse::of_unary(Failure::Refused("no".into()));
        assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
