mod stage;
mod steps;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use self::stage::{Next, Stage, Step, since, sleep};
use super::{
    admitted::Admitted,
    ask::Ask,
    error::QueueError,
    line::{Front, Wakes},
    lines::retire,
    seat::Outcome,
    shared::{Asking, Joined, Newcomer, Shared, until},
};
use crate::{
    algorithm::Algorithm, backend::Backend, decision::Decision, error::BackendError, key::Key,
    limiter::Limit, maybe_ready::MaybeReady, observe::queues::QueueEnd, time::timer_now,
};

pin_project! {
    /// One who waits to be admitted: the future of [`Queue::acquire`](super::Queue::acquire).
    ///
    /// # Cancel safety
    ///
    /// Dropped at any time it gives its place back: those behind it move up, and if it was the
    /// front the next one takes over. If it was admitted already, and this future was not polled
    /// since, the charge is given back: with a backend that has to be waited for, by a task of the
    /// Tokio runtime. So is what a decision takes that is pending there, which such a task sees
    /// through. Only where there is no runtime any more, or the process ends before, does it count.
    #[must_use = "futures do nothing unless polled"]
    #[project = AcquireProjection]
    pub struct Acquire<A: Algorithm, B: Backend<A>> {
        shared: Arc<Shared<A, B>>,
        key: Key,
        // The limit that it is decided by, if it is not the limiter's own.
        limit: Option<Limit<A>>,
        ask: Ask,
        // The first poll.
        came: Option<Instant>,
        // What had come back when the backend was asked.
        returns: u64,
        stage: Stage<A>,
        // The decision on this one, where it has to be waited for.
        #[pin]
        decision: Option<Asking<A, B>>,
        // The one timer.
        sleep: Option<Pin<Box<Sleep>>>,
    }

    impl<A: Algorithm, B: Backend<A>> PinnedDrop for Acquire<A, B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            match std::mem::replace(this.stage, Stage::Done) {
                Stage::New | Stage::Asked | Stage::Done => {}
                Stage::Waiting(joined) => {
                    leave(this.shared, this.key, this.limit.as_ref(), this.ask, &joined);
                    this.shared.ended(QueueEnd::Left, this.came.map(since));
                }
                Stage::Turn(turn) => {
                    this.shared.give_back(this.key, this.limit.as_ref(), &turn.charge);
                }
            }
        }
    }
}

impl<A: Algorithm, B: Backend<A>> Acquire<A, B> {
    #[inline]
    pub(super) fn new(
        shared: Arc<Shared<A, B>>,
        key: Key,
        limit: Option<Limit<A>>,
        ask: Ask,
    ) -> Self {
        let (stage, decision, sleep) = (Stage::New, None, None);
        let (came, returns) = (None, 0);
        Self { shared, key, limit, ask, came, returns, stage, decision, sleep }
    }

    /// When its turn comes, as it was told when it joined the line, or was admitted with a delay.
    pub const fn promised(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting(joined) => Some(joined.promised),
            Stage::Turn(turn) => Some(turn.start),
            _ => None,
        }
    }
}

impl<A: Algorithm, B: Backend<A>> Future for Acquire<A, B> {
    type Output = Result<Admitted, QueueError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        if matches!(this.stage, Stage::New) && this.shared.is_deserted() {
            // ## New => end
            //
            // The common case: nobody waits, and there is enough. It takes no lock, no look at the
            // clock and no step in between.
            *this.returns = this.shared.returns();
            let asked = this.shared.ask_at_once(this.key, this.limit.as_ref(), this.ask);
            // Looked at where it is: to move it takes longer than all the rest.
            if let Some(Ok(Decision::Allow { snapshot, charge })) = asked.as_ready()
                && charge.delay.is_zero()
            {
                *this.stage = Stage::Done;
                this.shared.count_admitted(this.ask);
                this.shared.ended(QueueEnd::AtOnce, None);
                return Poll::Ready(Ok(Admitted::at_once(*snapshot, *charge)));
            }
            return self.go_on_from(asked, context);
        }
        self.go_on(context)
    }
}

impl<A: Algorithm, B: Backend<A>> Acquire<A, B> {
    /// Goes on from an answer that was not the usual one. Apart, so that the usual path shares no
    /// variable with it.
    #[inline(never)]
    fn go_on_from(
        mut self: Pin<&mut Self>,
        asked: MaybeReady<B::Decide>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Admitted, QueueError>> {
        let mut this = self.as_mut().project();
        let next = this.asked(asked.try_into_ready(), context.waker());
        if let Some(ended) = this.go(next) {
            return Poll::Ready(ended);
        }
        self.go_on(context)
    }

    /// Goes through the stages, from where it is to its end or until it has to wait.
    #[inline(never)]
    fn go_on(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Admitted, QueueError>> {
        loop {
            let this = self.as_mut().project();
            let next = match this.stage {
                // ## New => (Asked | Waiting | Turn | end)
                //
                // Who comes while somebody waits joins the line; else the backend is asked.
                Stage::New => self.as_mut().come(context.waker()),
                // ## Asked => (Waiting | Turn | end)
                //
                // The backend has answered one who came while nobody waited.
                Stage::Asked => {
                    let answer = ready!(self.as_mut().poll_decision(context));
                    self.as_mut().project().enter(answer, context.waker())
                }
                // ## Waiting => (Turn | end)
                //
                // It was told, or has driven until it could tell itself.
                Stage::Waiting(_) => ready!(self.as_mut().wait(context)),
                // ## Turn => end
                //
                // Its turn has come. Until here, dropping this future gives it back.
                Stage::Turn(turn) => {
                    let turn = **turn;
                    if turn.start > timer_now() {
                        ready!(sleep(this.sleep, turn.start, context));
                    }
                    Ok(Next::Admitted(self.as_mut().project().finish(turn)))
                }
                Stage::Done => panic!("a future is not polled after it is ready"),
            };
            if let Some(ended) = self.as_mut().project().go(next) {
                return Poll::Ready(ended);
            }
        }
    }

    fn come(self: Pin<&mut Self>, waker: &Waker) -> Step<A> {
        let mut this = self.project();
        let shared = Arc::clone(this.shared);
        let mut shard = shared.lines.lock(this.key);
        if shard.get(this.key).is_some_and(|line| !line.schedule.is_empty()) {
            let now = this.arrive();
            let mut wakes = Wakes::default();
            let (key, limit, ask) = (&*this.key, this.limit.as_ref(), &*this.ask);
            let newcomer = Newcomer { key, limit, ask, came: now, waker };
            let joined = shared.join(&mut shard, newcomer, now, None, &mut wakes);
            drop(shard);
            wakes.wake();
            return joined.map(|joined| Next::Stage(Stage::Waiting(joined)));
        }
        *this.returns = shared.returns();
        drop(shard);
        let asked = shared.ask_at_once(this.key, this.limit.as_ref(), this.ask);
        this.asked(asked.try_into_ready(), waker)
    }

    /// Waits until this one is told, or its time is over.
    fn wait(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Step<A>> {
        loop {
            let answer = match self.as_mut().project().decision.as_pin_mut() {
                None => None,
                Some(decision) => Some(ready!(decision.poll(context)).0),
            };
            let mut this = self.as_mut().project();
            let Stage::Waiting(joined) = &mut *this.stage else {
                unreachable!("it stands in line");
            };
            let (promised, seat) = (joined.promised, Arc::clone(&joined.seat));
            let rank = seat.rank;
            this.decision.set(None);
            if answer.is_none()
                && let Some(outcome) = seat.fetch()
            {
                // Those who were told have nothing more to do in the line.
                return Poll::Ready(this.ended(outcome, promised));
            }
            if !std::mem::replace(&mut joined.is_needed, true) {
                // It has just joined, and others see to the line.
                let Some(latest) = this.ask.deadline else { return Poll::Pending };
                ready!(sleep(this.sleep, latest, context));
                continue;
            }
            let shared = &*this.shared;
            let now = timer_now();
            let mut wakes = Wakes::default();
            let mut shard = shared.lines.lock(this.key);
            let Some(line) = shard.get_mut(this.key) else {
                // It was told just now, and nobody else waited.
                drop(shard);
                continue;
            };
            if let Some(answer) = answer {
                line.answered(rank, this.ask.its_flow(), answer, now, &mut wakes);
            }
            wakes.discard(seat.listen(context.waker()));
            let own = this.limit.as_ref();
            let ask = |front: Front<'_, A>| {
                let asked = shared.ask_after(this.key, &front).try_into_ready();
                let limit = front.seat.limit.as_ref();
                asked.map_err(|decide| shared.see_through(this.key, limit, decide))
            };
            let pending = line.drive(rank, now, ask, &mut wakes);
            let outcome = seat.fetch();
            let is_over = this.ask.deadline.is_some_and(|latest| latest <= now);
            let gives_up = outcome.is_none() && pending.is_none() && is_over;
            let gone = gives_up.then(|| {
                let turn = shared.turn_of(line, this.key, own, rank, now);
                line.leave(rank, this.ask.its_flow(), &mut wakes);
                shared.denial(own, until(turn, now), line.standing)
            });
            let due = line.asks_again(rank);
            retire(&mut shard, this.key);
            drop(shard);
            wakes.wake();
            if let Some(outcome) = outcome {
                return Poll::Ready(this.ended(outcome, promised));
            }
            if let Some(denial) = gone {
                shared.unqueue();
                return Poll::Ready(Err(QueueError::TooLate(denial)));
            }
            if let Some(decision) = pending {
                this.decision.set(Some(decision));
                continue;
            }
            let Some(at) = [due, this.ask.deadline].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            ready!(sleep(this.sleep, at, context));
        }
    }

    fn poll_decision(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Decision, BackendError>> {
        let mut this = self.project();
        let decision = this.decision.as_mut().as_pin_mut();
        let (answer, _) = ready!(decision.expect("the backend was asked").poll(context));
        this.decision.set(None);
        Poll::Ready(answer)
    }
}

impl<A: Algorithm, B: Backend<A>> fmt::Debug for Acquire<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("key", &self.key)
            .field("ask", &self.ask)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// One who waited goes away.
fn leave<A: Algorithm, B: Backend<A>>(
    shared: &Arc<Shared<A, B>>,
    key: &Key,
    limit: Option<&Limit<A>>,
    ask: &Ask,
    joined: &Joined<A>,
) {
    let mut wakes = Wakes::default();
    let mut shard = shared.lines.lock(key);
    // Behind the lock: nobody is told after that.
    let told = joined.seat.fetch();
    if let Some(line) = shard.get_mut(key) {
        line.leave(joined.seat.rank, ask.its_flow(), &mut wakes);
        retire(&mut shard, key);
    }
    drop(shard);
    wakes.wake();
    shared.unqueue();
    if let Some(Outcome::Decided(Ok(Decision::Allow { charge, .. }), _)) = told {
        shared.give_back(key, limit, &charge);
    }
}
