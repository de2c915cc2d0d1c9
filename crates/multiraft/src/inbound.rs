//! Messages from other nodes find their replica, or their caller.

use std::sync::Arc;

use cribwork_transport::{Class, Message, MessageHandler};
use cribwork_types::{RangeDescriptor, ReplicaRole, StoreId};

use crate::apply::Job;
use crate::members::ReplicaChange;
use crate::node::NodeShared;
use crate::raft::kind;
use crate::replica::Replica;

/// The transport's view of a node's groups.
pub(crate) struct Inbound {
    pub(crate) shared: Arc<NodeShared>,
}

impl MessageHandler for Inbound {
    fn on_message(&self, from: StoreId, message: Message) {
        let shared = &self.shared;
        match message.kind {
            kind::LIVENESS => self.liveness(from, message),
            answer if kind::is_answer(answer) => {
                shared.calls.answer(from, message.call, message.payload);
            }
            kind::NEEDS_SNAPSHOT => self.needs_snapshot(message),
            kind::WHO_IS_THIS => self.introduce(from, &message),
            kind::INTRODUCTION => self.introduced(from, message),
            kind::GONE => self.gone(message),
            kind::BURIED => self.buried(from, &message),
            kind::WHO_LEADS => self.shared.say_what_leads(from, message, false),
            kind::STILL_LEADS => self.shared.say_what_leads(from, message, true),
            kind::LEADS => self.shared.told_of_leaders(from, message),
            _ => self.request(from, message),
        }
    }

    fn on_connected(&self, peer: StoreId) {
        for replica in self.shared.replicas().iter() {
            let Some(live) = replica.live() else { continue };
            let Some(member) = replica.descriptor().replica_on(peer) else {
                continue;
            };
            if replica.leader().is_self {
                let work = async move { live.raft.reset_backoff(member.id).await };
                self.shared.runtime.spawn(Box::pin(work));
            }
        }
    }

    /// Answers that were on their way when the peer's older stream broke are gone: whoever waits
    /// for one has to ask again, and not to wait for a time-out.
    fn on_accepted(&self, peer: StoreId) {
        self.shared.calls.fail_all(peer);
        self.shared.incoming.drop_from(peer);
    }

    fn on_disconnected(&self, peer: StoreId) {
        self.shared.calls.fail_all(peer);
        self.shared.liveness.reset(peer);
    }
}

impl Inbound {
    fn liveness(&self, from: StoreId, message: Message) {
        match self.shared.liveness.heard(from, message.payload) {
            Ok(_) => self.shared.note_peer(from),
            Err(_) => drop(self.shared.metrics.malformed_messages.inc()),
        }
    }

    fn request(&self, from: StoreId, message: Message) {
        let shared = &self.shared;
        let Some(replica) = shared.replica(message.range) else {
            shared.metrics.messages_unknown_range.inc();
            shared.message_for_unknown_range(from, &message);
            return shared.refuse(from, &message);
        };
        if replica.replica_id() != message.to {
            shared.metrics.messages_unknown_range.inc();
            if replica.replica_id() < message.to {
                // A later member on this store: the one that is here may be gone.
                shared.message_for_unknown_range(from, &message);
            }
            return shared.refuse(from, &message);
        }
        if matches!(message.kind, kind::APPEND | kind::HEARTBEAT) {
            replica.heard_leader(from, message.from);
            if !replica.is_initialised() {
                return self.append_without_log(from, &replica, &message);
            }
        }
        if matches!(message.kind, kind::VOTE | kind::PRE_VOTE) {
            replica.answer_stranger(from, message.from);
        }
        replica.deliver(from, message);
    }

    /// This store holds no data of the range, so entries alone would make a replica with a hole: it is
    /// a new member, or slept through the split that made the range. Its leader finds that no entry
    /// fits, and sends a snapshot once its log does not reach back to the beginning.
    fn append_without_log(&self, from: StoreId, replica: &Arc<Replica>, message: &Message) {
        replica.wake();
        let append = match message.kind {
            kind::APPEND => crate::raft::stream_append(&message.payload),
            _ => Some(message.payload.clone()),
        };
        match append.and_then(crate::raft::without_log) {
            Some(payload) => {
                let answer = Message {
                    range: message.range,
                    from: message.to,
                    to: message.from,
                    kind: message.kind + 1,
                    call: message.call,
                    payload,
                };
                self.shared.send(from, Class::Data, answer);
            }
            None => {
                self.ask_for_snapshot(from, message);
                self.shared.refuse(from, message);
            }
        }
    }

    fn ask_for_snapshot(&self, from: StoreId, message: &Message) {
        let ask = Message {
            range: message.range,
            from: message.to,
            to: message.from,
            kind: kind::NEEDS_SNAPSHOT,
            call: 0,
            payload: bytes::Bytes::new(),
        };
        self.shared.send(from, Class::Control, ask);
    }

    /// A member does not know the range that a message of this store was for.
    fn introduce(&self, from: StoreId, message: &Message) {
        let Some(replica) = self.shared.replica(message.range) else {
            return;
        };
        let descriptor = replica.descriptor();
        let is_member = descriptor.replica_on(from).is_some_and(|it| it.id == message.from);
        if !is_member || !replica.is_initialised() {
            return;
        }
        let answer = Message {
            range: message.range,
            from: replica.replica_id(),
            to: message.from,
            kind: kind::INTRODUCTION,
            call: 0,
            payload: descriptor.encode(),
        };
        self.shared.send(from, Class::Control, answer);
    }

    fn introduced(&self, from: StoreId, message: Message) {
        let shared = self.shared.clone();
        let descriptor = match RangeDescriptor::decode(message.payload) {
            Ok(descriptor) if descriptor.id == message.range => descriptor,
            _ => {
                shared.metrics.malformed_messages.inc();
                return;
            }
        };
        let mine = descriptor.replica_on(shared.options.store);
        if mine.is_none_or(|mine| mine.id != message.to) {
            return;
        }
        let by = (from, message.from);
        shared.offer_apply(Job::Introduced { descriptor, id: message.to, by });
    }

    /// A member says that the replica that this message is for was removed.
    fn gone(&self, message: Message) {
        let addressed = self.shared.replica(message.range);
        if addressed.is_none_or(|replica| replica.replica_id() != message.to) {
            return;
        }
        match RangeDescriptor::decode(message.payload) {
            Ok(now) if now.id == message.range => drop(self.shared.check_gone(&now)),
            _ => drop(self.shared.metrics.malformed_messages.inc()),
        }
    }

    /// A store was rid of a replica that is a member all the same: it was taken in again under its old id.
    /// It never comes back, so a leader lets the learner go.
    fn buried(&self, from: StoreId, message: &Message) {
        let Some(replica) = self.shared.replica(message.range) else { return };
        let descriptor = replica.descriptor();
        let learner = descriptor.replica(message.from).filter(|it| {
            it.store == from && it.role == ReplicaRole::Learner && replica.leader().is_self
        });
        let Some(learner) = learner else { return };
        self.shared.runtime.spawn(Box::pin(async move {
            let change = ReplicaChange::Members { promote: vec![], remove: vec![learner.id] };
            if let Err(error) = replica.change_replicas(change).await {
                // The store says so again with the next message for it.
                tracing::info!(range = %replica.range_id(), %error, "a dead learner stays");
            }
        }));
    }

    /// A leader that is told so cuts the first entry of its log, which makes Raft send a snapshot. It may
    /// not serve yet: the member without data may be the one that its majority lacks.
    fn needs_snapshot(&self, message: Message) {
        let Some(replica) = self.shared.replica(message.range) else {
            return;
        };
        if replica.replica_id() != message.to || !replica.is_elected() {
            return;
        }
        let Some(live) = replica.live() else { return };
        self.shared.runtime.spawn(Box::pin(async move { live.raft.cut_first().await }));
    }
}
