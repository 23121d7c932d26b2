use std::time::Duration;

use self::sealed::Book;
use super::{Algorithm, Portion, Share};
use crate::{
    cost::Cost,
    decision::{Charge, Decision},
    name::{PolicyName, QuotaPolicy},
    time::Timestamp,
};

/// A window that gives out turns before they come: what a [`LeaseBucket`](super::LeaseBucket) is to
/// a token bucket.
///
/// It is made by [`FixedWindow::ahead`](super::FixedWindow::ahead),
/// [`SlidingWindow::ahead`](super::SlidingWindow::ahead) and
/// [`SlidingLog::ahead`](super::SlidingLog::ahead), and for a plan by
/// [`Plan::ahead`](super::Plan::ahead). What has no room now is not refused if there is room for
/// it within the time that is `ahead`: it is charged at once to the window in which it starts, and
/// the charge's [`delay`](Charge::delay) says when that is. Before a
/// [queue](crate::queue#one-limit-for-many-instances) instances ask once for each turn, and the
/// order among them is the state's.
///
/// # Laws
///
/// - No window has more *starts* than its limit: what holds for admissions by the window holds for
///   the starts here.
/// - Turns are in the order in which they were asked for. Nobody starts before the last turn that
///   was given out, even if there would be room; who would have to wait for longer than `ahead`
///   is refused, and told when it can have a turn.
/// - [`available`](Algorithm::available) is what can be taken together at the next turn, for a plan
///   one at a time, and a [snapshot](crate::Snapshot) shows what can be taken without one.
/// - Costs above the limit are never admitted. So costs do not always add up: two that are more
///   than the limit together have two turns.
/// - A turn that is given back is given out again if it is in the window of the last turn. In a
///   window before it, a place of a fixed window is lost, for those behind it know their instants
///   already; in a sliding window and a log it counts for nobody, and those who come later are the
///   nearer for it. Nobody comes to stand before the last turn, even if that is given back.
/// - Use beyond what was taken counts at the last turn.
/// - If the limit changes, those who have turns keep them, and those who come then start behind
///   them: no window in which they do has more starts by then than the limit is by then. (The
///   length of fixed windows is another matter: turns are then as many windows away as before.)
/// - A clock that goes back for good changes nothing for those who have turns, who were told for
///   how long to wait; and those who come then start behind them.
///
/// The state is the window's own. One that decides without turns takes it over and admits nothing
/// before the last turn; but let all that share a key have the same, or what it corrects may lose
/// or gain places.
///
/// With nothing ahead it decides as the window does.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Cost, Quota, algorithm::{Algorithm, FixedWindow}, time::Timestamp};
///
/// let window = FixedWindow::new(Quota::per_second(2)).ahead(Duration::from_secs(1));
/// let now = Timestamp::from_nanos(5_400_000_000);
/// let mut state = window.initial(now);
///
/// let mut delay = || window.decide(&mut state, now, Cost::ONE).charge().map(|charge| charge.delay);
/// assert_eq!([delay(), delay()], [Some(Duration::ZERO); 2]);
/// // Two in the second that begins in 0.6 seconds; the one after it is farther away than that.
/// assert_eq!([delay(), delay()], [Some(Duration::from_millis(600)); 2]);
/// assert_eq!(delay(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ahead<W> {
    window: W,
    ahead: Duration,
}

/// A window, or a plan, that can give out turns before they come.
///
/// It is sealed: what a state knows of turns to come is the window's own.
pub trait Window: Book {}

impl<W: Book> Window for W {}

#[doc(hidden)]
pub mod sealed {
    use std::time::Duration;

    use crate::{
        algorithm::Algorithm,
        cost::Cost,
        decision::{Charge, Decision},
        time::Timestamp,
    };

    /// How a window decides where turns can be given out for so long before they come.
    pub trait Book: Algorithm {
        /// When it starts, should nothing be too far ahead. `None`: never.
        fn starts_at(&self, state: &Self::State, now: Timestamp, cost: Cost) -> Option<Timestamp>;

        /// As [`Algorithm::decide`], for what does not start before `from`.
        fn book(
            &self,
            state: &mut Self::State,
            now: Timestamp,
            from: Timestamp,
            cost: Cost,
            ahead: Duration,
        ) -> Decision;

        /// As [`Algorithm::available`]: at the next turn.
        fn bookable(&self, state: &Self::State, now: Timestamp, each: Cost, ahead: Duration)
        -> u64;

        /// Gives back `cost` of what `charge` took, to where it was to start.
        fn unbook(&self, state: &mut Self::State, now: Timestamp, charge: &Charge, cost: Cost) {
            let turn = charge.at.saturating_add(charge.delay);
            self.refund(state, now, &Charge::new(turn, cost), cost);
        }

        /// Whether there is a limit at this place.
        fn has_policy(&self, policy: usize) -> bool {
            policy == 0
        }
    }
}

impl<W> Ahead<W> {
    pub(super) const fn new(window: W, ahead: Duration) -> Self {
        Self { window, ahead }
    }

    /// The window whose turns these are.
    pub const fn window(&self) -> &W {
        &self.window
    }

    /// How long before they come turns are given out.
    pub const fn time_ahead(&self) -> Duration {
        self.ahead
    }
}

impl<W: Window> Algorithm for Ahead<W> {
    type State = W::State;

    fn initial(&self, now: Timestamp) -> W::State {
        self.window.initial(now)
    }

    fn decide(&self, state: &mut W::State, now: Timestamp, cost: Cost) -> Decision {
        if self.ahead.is_zero() {
            return self.window.decide(state, now, cost);
        }
        self.window.book(state, now, now, cost, self.ahead)
    }

    /// What can be taken together at the next turn.
    fn available(&self, state: &W::State, now: Timestamp, each: Cost) -> u64 {
        if self.ahead.is_zero() {
            return self.window.available(state, now, each);
        }
        self.window.bookable(state, now, each, self.ahead)
    }

    fn take(&self, state: &mut W::State, now: Timestamp, cost: Cost) {
        self.window.take(state, now, cost);
    }

    fn refund(&self, state: &mut W::State, now: Timestamp, charge: &Charge, cost: Cost) {
        if self.ahead.is_zero() {
            return self.window.refund(state, now, charge, cost);
        }
        self.window.unbook(state, now, charge, cost);
    }

    /// Of what can be taken without a turn: what is to come is not there yet.
    fn lower(&self, state: &mut W::State, now: Timestamp, policy: usize, left: u64) -> Decision {
        if !self.window.has_policy(policy) {
            return self.decide(&mut state.clone(), now, Cost::ZERO);
        }
        self.window.lower(state, now, policy, left)
    }

    fn idle_at(&self, state: &W::State) -> Timestamp {
        self.window.idle_at(state)
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        self.window.policies(name)
    }

    fn capacity(&self) -> Cost {
        self.window.capacity()
    }

    /// What comes in that time is ahead too. With nothing ahead, there are no turns to be given
    /// out.
    fn after_waiting(&self, waited: Duration) -> Option<Self> {
        let ahead = self.ahead.saturating_add(waited);
        (!self.ahead.is_zero()).then(|| Self { ahead, window: self.window.clone() })
    }
}

impl<W: Window + Share> Share for Ahead<W> {
    /// The time stays: it is how long callers may be told to wait.
    fn share(&self, portion: Portion) -> Self {
        Self { window: self.window.share(portion), ahead: self.ahead }
    }
}
