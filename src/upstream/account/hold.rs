use std::sync::Arc;

use super::{
    gate::{InProgress, UnderWay},
    ledger::Ledger,
    untold::Untold,
};
use crate::{
    algorithm::Plan,
    backend::Backend,
    cost::Cost,
    decision::{Charge, Snapshot},
    queue::Admitted,
    reserve::Open,
    time::Timestamp,
    upstream::{
        estimate::Estimate,
        metering::Learns,
        observation::{Answer, Observation},
        profile::Profile,
        standing::Ticket,
        usage::Usage,
    },
};

/// What is reserved for a request that may be sent.
///
/// Dropped before the request is [sent](Self::send), it comes back. Dropped without an answer, it
/// counts as reserved: nobody knows what became of the request.
pub(in crate::upstream) struct Hold<B: Backend<Plan>> {
    ledger: Arc<Ledger<B>>,
    charge: Charge,
    snapshot: Snapshot,
    estimate: Estimate,
    ticket: Ticket,
    /// Until the answer is there.
    under_way: Option<UnderWay>,
    /// Until the answer has ended.
    in_progress: Option<InProgress>,
    /// The stops before its refusal was warned of.
    untold: Option<Untold>,
    sent: Timestamp,
    is_sent: bool,
}

impl<B: Backend<Plan>> Hold<B> {
    pub(super) fn new(
        ledger: Arc<Ledger<B>>,
        admitted: Admitted,
        estimate: Estimate,
        ticket: Ticket,
        (under_way, in_progress): (UnderWay, InProgress),
    ) -> Self {
        let sent = ledger.board.now();
        let Admitted { charge, snapshot, .. } = admitted;
        let (under_way, in_progress) = (Some(under_way), Some(in_progress));
        Self {
            ledger,
            charge,
            snapshot,
            estimate,
            ticket,
            under_way,
            in_progress,
            untold: None,
            sent,
            is_sent: false,
        }
    }

    /// The request is handed to the service that sends it: from here on it may have been.
    pub(in crate::upstream) const fn send(&mut self) {
        self.is_sent = true;
    }

    /// The profile of the account.
    pub(in crate::upstream) fn profile(&self) -> &Profile {
        &self.ledger.profile
    }

    /// What the request was estimated at.
    pub(in crate::upstream) const fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// When the request was sent.
    pub(in crate::upstream) const fn sent(&self) -> Timestamp {
        self.sent
    }

    /// The time.
    pub(in crate::upstream) fn now(&self) -> Timestamp {
        self.ledger.board.now()
    }

    /// The answer is there. What it says is told to all who use the account.
    pub(in crate::upstream) fn answered(&mut self, answer: &Answer<'_>) -> Observation {
        let before = self.untold.unwrap_or_else(|| self.ledger.untold());
        let mut observation = self.ledger.bounded(self.ledger.profile.observe(answer), &before);
        let went_well = answer.status.is_success() && observation.stop.is_none();
        if went_well {
            let (dimensions, cost) = (self.ledger.profile.dimensions(), self.charge.cost);
            observation.forget_what_cannot_be(dimensions, cost);
        }
        if let Some(under_way) = self.under_way.take() {
            let (cost, snapshot) = (self.charge.cost, &self.snapshot);
            let is_tried_out = self.ledger.watch.is_tried_out();
            // Of what else came back nobody knows whether the limits were asked at all.
            if went_well {
                self.ledger.went_well(under_way, &observation);
            } else {
                drop(under_way);
            }
            self.ledger.observe(self.ticket, is_tried_out, cost, snapshot, &observation);
        }
        observation
    }

    /// A refusal has begun to come, and says by and by what it is about: nobody sends meanwhile.
    pub(in crate::upstream) fn warned(&mut self, answer: &Answer<'_>) {
        self.untold = Some(self.ledger.untold());
        self.ledger.warned(&self.ledger.profile.observe(answer));
    }

    /// The request failed: what the provider counts of it is what its profile says.
    pub(in crate::upstream) fn fail(self) {
        let actual = self.ledger.profile.failed(self.charge.cost);
        Arc::clone(&self.ledger).settle(self.charge, actual);
    }

    /// What learns from what the call comes to.
    pub(in crate::upstream) fn learner(&self) -> Arc<dyn Learns> {
        Arc::clone(&self.ledger) as Arc<dyn Learns>
    }
}

impl<B: Backend<Plan>> Open for Hold<B> {
    fn charge(&self) -> &Charge {
        &self.charge
    }

    fn settle(self: Box<Self>, actual: Cost) {
        Arc::clone(&self.ledger).settle(self.charge, actual);
    }
}

impl<B: Backend<Plan>> Drop for Hold<B> {
    fn drop(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            drop(under_way);
            self.ledger.lose(self.ticket);
        }
        if let Some(in_progress) = self.in_progress.take() {
            drop(in_progress);
            self.ledger.ended();
        }
        if !self.is_sent {
            Arc::clone(&self.ledger).withdraw(self.charge);
        }
    }
}

impl<B: Backend<Plan>> Learns for Ledger<B> {
    fn learn(&self, estimate: &Estimate, usage: &Usage) {
        Self::learn(self, estimate, usage);
    }

    fn interrupted(&self, observation: &Observation) {
        self.observe_inside(&self.bounded(observation.clone(), &self.untold()));
    }

    fn unread(&self) {
        self.observer.unread(&self.quota);
    }

    fn now(&self) -> Timestamp {
        self.board.now()
    }
}
