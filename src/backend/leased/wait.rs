use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    runtime::{self, Handle},
    time::{Sleep, sleep},
};

use super::{
    Answer, Leased,
    call::{Call, Ticket},
    on,
    seat::{Out, Seat},
    terms::Terms,
};
use crate::{algorithm::LeaseBucket, backend::Backend, cost::Cost, key::Key, time::Clock};

/// A request that waits for what is being drawn.
///
/// There is no task that draws. Each who waits drives the call that is out: the call is a shared
/// future, which is polled by whoever is woken and stays in the seat whoever leaves. If all leave
/// it rests until the next comes; what it brings then has aged meanwhile, and expires as if it had
/// not rested.
///
/// # Transitions
///
/// It is decided when the answer to some call says so, whoever took that answer. Until then it is
/// woken when the call that it polls is answered, and when there is another call. A call of another
/// runtime may never be: that may stand still. Then it makes another when the first is given up.
pub(super) struct Wait<B: Backend<LeaseBucket>, C: Clock> {
    leased: Leased<B, C>,
    key: Key,
    terms: Terms,
    ticket: Ticket,
    cost: Cost,
    out: Option<Out>,
    /// Rings when a call of another runtime is given up.
    alarm: Option<Pin<Box<Sleep>>>,
    is_done: bool,
}

impl<B: Backend<LeaseBucket>, C: Clock> Wait<B, C> {
    pub(super) const fn new(
        leased: Leased<B, C>,
        key: Key,
        terms: Terms,
        (ticket, cost): (Ticket, Cost),
    ) -> Self {
        Self { leased, key, terms, ticket, cost, out: None, alarm: None, is_done: false }
    }

    fn with_seat<T>(&self, then: impl FnOnce(&mut Seat) -> T) -> Option<T> {
        // A seat stays while somebody waits for it.
        self.leased.shared.seats.with(&self.key, then)
    }

    /// The call that is out, which is made if there is none.
    fn call_of(&self, seat: &mut Seat) -> Option<Out> {
        if let Some(call) = seat.lease.next_call(self.leased.shared.clock.now()) {
            seat.set_out(self.make(call));
        }
        seat.out()
    }

    /// The backend is asked when the call is first polled: not in the lock.
    fn make(&self, call: Call) -> Out {
        let (backend, bucket) = (self.leased.shared.backend.clone(), *self.terms.drawn_from());
        let key = self.key.clone();
        let answer = async move { backend.decide(&bucket, &key, &call.demand).await };
        Out { call, made_by: this_runtime(), answer: answer.boxed().shared() }
    }

    /// Whether it is time to look again whether the call that is out has been given up.
    fn has_rung(&mut self, context: &mut Context<'_>) -> bool {
        let Some(Out { call, made_by, .. }) = &self.out else { return false };
        let here = this_runtime();
        if here.is_none() || *made_by == here {
            return false;
        }
        let given_up = call.sent.saturating_add(self.terms.patience());
        let alarm = self.alarm.get_or_insert_with(|| {
            let now = self.leased.shared.clock.now().as_nanos();
            Box::pin(sleep(Duration::from_nanos(given_up.saturating_sub(now)).max(TICK)))
        });
        let has_rung = alarm.as_mut().poll(context).is_ready();
        if has_rung {
            self.alarm = None;
        }
        has_rung
    }

    /// Takes the answer to a call. Only the first who brings it changes anything.
    fn bring(&self, id: u64, answer: Answer) {
        let wakers = self.with_seat(|seat| {
            let mut decided = Vec::new();
            seat.lease.answer(id, self.leased.shared.clock.now(), answer, &mut decided);
            seat.take_in(id);
            seat.tell(decided);
            seat.wakers()
        });
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

impl<B: Backend<LeaseBucket>, C: Clock> Future for Wait<B, C> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        loop {
            let polled = self.with_seat(|seat| match seat.poll(self.ticket, context.waker()) {
                Some(decided) => Ok(decided),
                None => Err(self.call_of(seat)),
            });
            match polled {
                Some(Ok(decided)) => {
                    self.is_done = true;
                    return Poll::Ready(decided.map(|decision| on(self.cost, decision)));
                }
                Some(Err(out)) => self.out = out,
                None => unreachable!("a seat stays while somebody waits for it"),
            }
            let Some(out) = &mut self.out else { return Poll::Pending };
            let id = out.call.id;
            match out.answer.poll_unpin(context) {
                Poll::Ready(answer) => self.bring(id, answer),
                Poll::Pending if self.has_rung(context) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<B: Backend<LeaseBucket>, C: Clock> Drop for Wait<B, C> {
    fn drop(&mut self) {
        if !self.is_done {
            let now = self.leased.shared.clock.now();
            self.with_seat(|seat| seat.leave(self.ticket, now));
        }
    }
}

impl<B: Backend<LeaseBucket>, C: Clock> Unpin for Wait<B, C> {}

fn this_runtime() -> Option<runtime::Id> {
    Handle::try_current().ok().map(|runtime| runtime.id())
}

/// What a timer can tell apart: a clock that is behind it is not looked at over and over.
const TICK: Duration = Duration::from_millis(1);
