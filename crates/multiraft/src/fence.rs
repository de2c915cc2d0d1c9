//! Commands that change what a range is, proposed so that no read slips past them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::command::{Body, Command, Evaluated};
use crate::error::RaftError;
use crate::fate::Fate;
use crate::read::WriteToken;
use crate::replica::Replica;

/// Pause before asking again what became of a command.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// Keeps reads away from this leader while the fate of a command that takes keys away is open: somebody
/// might already serve them elsewhere.
struct Fence(Arc<Replica>);

impl Fence {
    fn raise(replica: &Arc<Replica>) -> Self {
        replica.fences.fetch_add(1, Ordering::AcqRel);
        Self(replica.clone())
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.0.fences.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// What stands still while the fate of a command is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Still {
    /// Nothing is read here: the command takes keys away.
    Reads,
    /// Nothing else changes the members.
    Members,
    /// Neither happens.
    Both,
}

impl Replica {
    /// Proposes a command that changes what the range is. A caller that goes away stops nothing: what stands
    /// still for it does so until its fate is known.
    pub(crate) async fn propose_fenced(
        self: &Arc<Self>,
        token: &WriteToken,
        body: Body,
        still: Still,
    ) -> Result<Fate, RaftError> {
        let command = Command { evaluated: token.evaluated(), body };
        // A freeze may have to wait for a change of members first, which takes no keys away.
        let at_once = (still == Still::Reads).then(|| Fence::raise(self));
        let (tell, told) = oneshot::channel();
        let (replica, term) = (self.clone(), token.term());
        self.shared().runtime.spawn(Box::pin(async move {
            let _members = match still {
                Still::Reads => None,
                Still::Members | Still::Both => Some(replica.changing.lock().await),
            };
            let fence = match still {
                Still::Both => Some(Fence::raise(&replica)),
                Still::Reads | Still::Members => at_once,
            };
            let fate = replica.propose_command(command).await;
            let open = matches!(fate, Ok(Fate::Lost(_)) | Err(RaftError::Undetermined { .. }));
            // An error means that the caller has left.
            let _ = tell.send(fate);
            if open {
                replica.settle(term).await;
            }
            drop(fence);
        }));
        let range = self.range_id();
        let undetermined = RaftError::Undetermined { range, why: "the node is stopping" };
        told.await.unwrap_or(Err(undetermined))
    }

    /// Waits until everything that this leader proposed in `term` before has a fate: once a later
    /// proposal of the term is applied, or the term is over. A later leadership of this replica
    /// begins with a barrier behind all of it.
    async fn settle(self: &Arc<Self>, term: u64) {
        while self.still_leads(term, Duration::MAX) && !self.shared().is_stopping() {
            let evaluated = Evaluated { term, epoch: self.descriptor().epoch };
            let command = Command { evaluated, body: Body::Barrier };
            if let Ok(Fate::Applied(_)) = self.propose_command(command).await {
                return;
            }
            self.shared().runtime.sleep(SETTLE_PAUSE).await;
        }
    }
}
