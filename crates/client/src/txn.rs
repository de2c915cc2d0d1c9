//! Optimistic transactions with snapshot isolation, as Percolator and TiKV do them: writes are
//! buffered until commit, locked at every key (prewrite), and become visible with the commit record
//! of one of them, the primary. Readers and writers that meet a lock find out from its primary
//! what became of the transaction and finish it.

mod buffer;
mod commit;
mod resolve;
mod snapshot;
mod transact;
mod transaction;

pub(crate) use resolve::StatusCache;
pub use snapshot::Snapshot;
pub use transact::{TransactOptions, Transacted};
pub use transaction::Transaction;
