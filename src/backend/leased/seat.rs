use std::{collections::VecDeque, sync::Arc, task::Waker};

use futures::future::{BoxFuture, Shared};
use tokio::runtime;

use super::{
    call::{Call, Decided, Ticket},
    counts::Counters,
    lease::Lease,
    terms::Terms,
};
use crate::{decision::Decision, error::BackendError, time::Timestamp};

/// The lease of one key, and those who wait for it.
pub(super) struct Seat {
    pub(super) lease: Lease,
    crowd: Box<Crowd>,
}

#[derive(Default)]
struct Crowd {
    /// The call that is out. Whoever waits drives it; nobody does if all have left, and then the
    /// next who comes does.
    out: Option<Out>,
    /// Those that were told what became of them, or that are to be woken. Tickets ascend.
    waiters: VecDeque<Waiter>,
}

#[derive(Clone)]
pub(super) struct Out {
    pub(super) call: Call,
    /// The runtime that made it, and may have to run for the answer to come.
    pub(super) made_by: Option<runtime::Id>,
    pub(super) answer: Shared<BoxFuture<'static, Result<Decision, BackendError>>>,
}

struct Waiter {
    ticket: Ticket,
    waker: Option<Waker>,
    decided: Option<Result<Decision, BackendError>>,
}

impl Seat {
    fn new(terms: Terms, now: Timestamp, counters: &Arc<Counters>) -> Self {
        let lease = Lease::counted(terms, now, Arc::clone(counters));
        Self { lease, crowd: Box::default() }
    }

    /// The seat at `place`, made new if there is none, or if it is one of another limit. `None` if
    /// somebody still waits for that.
    pub(super) fn renewed<'p>(
        place: &'p mut Option<Self>,
        terms: Terms,
        now: Timestamp,
        counters: &Arc<Counters>,
    ) -> Option<&'p mut Self> {
        match place {
            Some(seat) if *seat.lease.terms() == terms => {}
            Some(seat) if !seat.lease.is_unattended() || !seat.crowd.waiters.is_empty() => {
                return None;
            }
            _ => {
                if let Some(seat) = place {
                    seat.lease.forfeit(now);
                }
                *place = Some(Self::new(terms, now, counters));
            }
        }
        place.as_mut()
    }

    pub(super) fn out(&self) -> Option<Out> {
        self.crowd.out.clone()
    }

    pub(super) fn set_out(&mut self, out: Out) {
        self.crowd.out = Some(out);
    }

    /// The call `id` is not out any more.
    pub(super) fn take_in(&mut self, id: u64) {
        self.crowd.out.take_if(|out| out.call.id == id);
    }

    /// Whether nothing is lost with this seat.
    pub(super) fn is_idle(&mut self, now: Timestamp) -> bool {
        self.crowd.waiters.is_empty() && self.lease.is_idle(now)
    }

    /// What became of `ticket`, if it was decided. If not, `waker` is called when it is, or when
    /// there is another call to drive.
    pub(super) fn poll(
        &mut self,
        ticket: Ticket,
        waker: &Waker,
    ) -> Option<Result<Decision, BackendError>> {
        match self.crowd.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            Ok(place) if self.crowd.waiters[place].decided.is_some() => {
                self.crowd.waiters.remove(place).and_then(|waiter| waiter.decided)
            }
            Ok(place) => {
                match &mut self.crowd.waiters[place].waker {
                    Some(known) => known.clone_from(waker),
                    unknown => *unknown = Some(waker.clone()),
                }
                None
            }
            Err(place) => {
                let waiter = Waiter { ticket, waker: Some(waker.clone()), decided: None };
                self.crowd.waiters.insert(place, waiter);
                None
            }
        }
    }

    /// Tells those who waited what became of them.
    pub(super) fn tell(&mut self, decided: Vec<Decided>) {
        for (ticket, decision) in decided {
            match self.crowd.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
                Ok(place) => self.crowd.waiters[place].decided = Some(decision),
                Err(place) => {
                    // It was not polled yet.
                    let waiter = Waiter { ticket, waker: None, decided: Some(decision) };
                    self.crowd.waiters.insert(place, waiter);
                }
            }
        }
    }

    /// Those to be woken, outside of the lock.
    pub(super) fn wakers(&mut self) -> Vec<Waker> {
        self.crowd.waiters.iter_mut().filter_map(|waiter| waiter.waker.take()).collect()
    }

    /// Whoever waited under `ticket` does not any more. What was spent for it goes back.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Timestamp) {
        self.lease.leave(ticket);
        let place = self.crowd.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket);
        let Some(waiter) = place.ok().and_then(|place| self.crowd.waiters.remove(place)) else {
            return;
        };
        if let Some(Ok(Decision::Allow { charge, .. })) = waiter.decided {
            self.lease.give_back(now, &charge, charge.cost.units());
        }
    }
}
