//! When turns come, as it looks from here.

use tokio::time::Instant;

use super::{LineOf, Newcomer, Shared};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::Decision,
    key::Key,
    limiter::Limit,
    queue::{
        forecast::{Forecast, Turn, later},
        line::Outlook,
        rank::Rank,
        room::Leaver,
    },
    time::{Clock, SystemClock},
};

impl<A: Algorithm, B: Backend<A>> Shared<A, B> {
    /// When the turn of `rank` comes, who has just joined, if the leavers go and nobody else joins
    /// or leaves; and the forecast for whoever comes behind it.
    pub(super) fn foresee(
        &self,
        line: &mut LineOf<A, B>,
        newcomer: &Newcomer<'_, A>,
        rank: Rank,
        leavers: &[Leaver],
        now: Instant,
    ) -> (Turn, Option<Forecast<A::State>>) {
        let cost = newcomer.ask.cost;
        let is_last = line.schedule.last() == Some(rank);
        let limit = self.limit(newcomer.limit);
        let mut guess = None;
        if is_last
            && line.can_foresee()
            && let Some(mut forecast) = line.forecast.clone()
        {
            let turn = Turn::of(forecast.admit(limit.algorithm(), now, cost));
            // Nobody is turned away on a guess, if there is better than that.
            let in_time = match (&turn, newcomer.ask.deadline) {
                (Turn::At(at), Some(latest)) => *at <= latest,
                (Turn::At(_), None) => true,
                (Turn::Never, _) => false,
            };
            if in_time || line.outlook == Outlook::Exact {
                return (turn, Some(forecast));
            }
            guess = Some((turn, Some(forecast)));
        }
        let shown = self.limiter.backend().state_of(limit.algorithm(), newcomer.key);
        let (mut forecast, front_is_in) = match (shown, guess) {
            (Some((state, at)), _) => (Forecast::new(state, at, now), false),
            (None, Some(guess)) => return guess,
            (None, None) => (Self::surmise(line, &limit, now), line.due().is_some()),
        };
        let mut is_in = front_is_in;
        for (of, entry) in line.schedule.in_order() {
            if of == rank {
                break;
            }
            if std::mem::take(&mut is_in) || leavers.iter().any(|leaver| leaver.rank == of) {
                continue;
            }
            let others = self.limit(entry.value.limit.as_ref());
            forecast.admit(others.algorithm(), now, entry.value.cost);
        }
        if is_last {
            // What is true should the newcomer not stay.
            line.forecast = Some(forecast.clone());
            line.outlook = Outlook::Exact;
        }
        let is_the_front = front_is_in && line.front() == Some(rank);
        let turn = match is_the_front.then(|| self.start_of_front(line, now)).flatten() {
            Some(start) => Turn::At(start),
            None => Turn::of(forecast.admit(limit.algorithm(), now, cost)),
        };
        (turn, is_last.then_some(forecast))
    }

    /// When the turn of `rank` comes, who waits, as it looks now.
    pub(in crate::queue) fn turn_of(
        &self,
        line: &LineOf<A, B>,
        key: &Key,
        limit: Option<&Limit<A>>,
        rank: Rank,
        now: Instant,
    ) -> Instant {
        let limit = self.limit(limit);
        let Some((state, at)) = self.limiter.backend().state_of(limit.algorithm(), key) else {
            return self.estimate(line, &limit, rank, now);
        };
        let mut forecast = Forecast::new(state, at, now);
        let mut turn = now;
        for (of, entry) in line.schedule.in_order() {
            let its = self.limit(entry.value.limit.as_ref());
            turn = forecast.admit(its.algorithm(), now, entry.value.cost).unwrap_or(turn);
            if of == rank {
                break;
            }
        }
        turn
    }

    /// When the turn of `rank` comes, as far as the refusal of the front and the limit tell.
    fn estimate(&self, line: &LineOf<A, B>, limit: &Limit<A>, rank: Rank, now: Instant) -> Instant {
        let mut forecast = Self::surmise(line, limit, now);
        let mut turn = self.start_of_front(line, now).unwrap_or(now);
        for (place, (of, entry)) in line.schedule.in_order().enumerate() {
            // What is told of the front counts its own cost.
            if place > 0 || line.due().is_none() {
                let others = self.limit(entry.value.limit.as_ref());
                let admitted = forecast.admit(others.algorithm(), now, entry.value.cost);
                turn = admitted.unwrap_or(turn);
            }
            if of == rank {
                break;
            }
        }
        turn
    }

    /// When the front starts that was refused: when there is room for it, it has a turn, which may
    /// be to come.
    fn start_of_front(&self, line: &LineOf<A, B>, now: Instant) -> Option<Instant> {
        let (due, (_, _, front)) = (line.due()?, line.schedule.front()?);
        let limit = self.limit(front.value.limit.as_ref());
        let forecast = Self::surmise(line, &limit, now);
        Some(later(due, forecast.delay_of(limit.algorithm(), front.value.cost)))
    }

    /// The limit when the front is admitted, where the backend does not show its state: nothing is
    /// left of what refused it. If that was none of the limits, as where a provider said to stop,
    /// nothing is known to be used of them.
    fn surmise(line: &LineOf<A, B>, limit: &Limit<A>, now: Instant) -> Forecast<A::State> {
        // The backend's clock is not known; where windows begin with the calendar, this is near it.
        let due = line.due().unwrap_or(now);
        let at = SystemClock.now().saturating_add(due.saturating_duration_since(now));
        let algorithm = limit.algorithm();
        let mut state = algorithm.initial(at);
        if line.standing.limit == 0 {
            return Forecast::new(state, at, due);
        }
        // What it says of what is left, nobody needs.
        let _standing = algorithm.lower(&mut state, at, line.standing.policy, 0);
        // Of windows that are given out ahead nothing is left either.
        let windows =
            (0..MOST_WINDOWS).map(|_| algorithm.decide(&mut state, at, algorithm.capacity()));
        let _taken = windows.take_while(Decision::is_allowed).count();
        Forecast::new(state, at, due)
    }
}

/// A guess need not be better than that.
const MOST_WINDOWS: usize = 64;
