use std::{
    collections::{HashMap, VecDeque},
    fmt,
    time::Duration,
};

use super::Harness;
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    cost::Cost,
    decision::{Charge, Decision, Demand, Holder, RetryAfter},
    error::BackendError,
    key::Key,
    name::PolicyName,
    time::Timestamp,
};

/// A backend and the algorithm beside it, to be asked the same.
pub(super) struct Trial<'h, A: Algorithm, H: Harness<A>> {
    harness: &'h H,
    scenario: &'static str,
    pub(super) backend: H::Backend,
    pub(super) algorithm: A,
    /// What the backend may keep: one state, or several while its answers do not tell which.
    states: HashMap<Key, Vec<Kept<A>>>,
    now: Timestamp,
    begun: Timestamp,
    steps: u64,
    /// What was asked last, for the message of a failure.
    last: VecDeque<Step>,
}

/// A state and the limit that it was last used under.
#[derive(Clone, PartialEq)]
struct Kept<A: Algorithm> {
    state: A::State,
    by: A,
    /// When it was looked at since. It may have been written anew then, which shows when the limit
    /// changes.
    seen: Vec<Timestamp>,
}

impl<A: Algorithm> Kept<A> {
    fn new(state: A::State, by: A) -> Self {
        Self { state, by, seen: Vec::new() }
    }

    /// The same state, written at `now`. `None` where to take and to give back is not to do
    /// nothing.
    fn brought_up_to(&self, now: Timestamp) -> Option<Self> {
        let mut state = self.state.clone();
        self.by.take(&mut state, now, Cost::ONE);
        self.by.refund(&mut state, now, &Charge::new(now, Cost::ONE), Cost::ONE);
        let available = |state| self.by.available(state, now, Cost::ONE);
        let is_the_same = available(&state) == available(&self.state);
        is_the_same.then(|| Self::new(state, self.by.clone()))
    }
}

struct Step {
    after: Duration,
    key: Key,
    asked: Asked,
}

/// What both said. Unlike a decision it need not be obeyed.
pub(super) struct Told {
    expected: Decision,
    charged: Option<Charge>,
}

/// What both took, each with its own notes.
#[derive(Clone, Copy)]
pub(super) struct Receipt {
    expected: Charge,
    charged: Charge,
}

impl Told {
    pub(super) const fn is_allowed(&self) -> bool {
        self.expected.is_allowed()
    }

    pub(super) fn receipt(&self) -> Option<Receipt> {
        let (expected, charged) = self.expected.charge().zip(self.charged)?;
        Some(Receipt { expected, charged })
    }

    pub(super) const fn retry_after(&self) -> Option<RetryAfter> {
        self.expected.retry_after()
    }
}

impl Receipt {
    pub(super) const fn cost(&self) -> Cost {
        self.expected.cost
    }
}

enum Asked {
    Demand(Demand),
    Admit(Demand),
    Settle(Charge, Cost),
}

/// How many steps a message tells.
const TOLD: usize = 8;

impl<'h, A: Algorithm, H: Harness<A>> Trial<'h, A, H> {
    pub(super) fn begin(
        harness: &'h H,
        scenario: &'static str,
        algorithm: A,
        now: Timestamp,
    ) -> Self {
        let mut trial = Self {
            harness,
            scenario,
            backend: harness.backend(),
            algorithm,
            states: HashMap::new(),
            now,
            begun: now,
            steps: 0,
            last: VecDeque::new(),
        };
        trial.advance(Duration::ZERO);
        trial
    }

    /// When the next may begin.
    pub(super) fn end(self) -> Timestamp {
        self.now.saturating_add(Duration::from_secs(1))
    }

    /// Moves the time on by the next multiple of the tick.
    pub(super) fn advance(&mut self, by: Duration) {
        let tick = H::TICK.as_nanos().max(1);
        let now = u128::from(self.now.as_nanos()) + by.as_nanos();
        let now = now.next_multiple_of(tick);
        self.now = Timestamp::from_nanos(u64::try_from(now).expect("a time before 2554"));
        self.harness.set_time(self.now);
    }

    /// The time until `key` is idle, as the algorithm tells it.
    pub(super) fn idle_after(&self, key: &Key) -> Duration {
        let states = self.states.get(key).into_iter().flatten();
        let idle_at = states.map(|kept| kept.by.idle_at(&kept.state)).max();
        idle_at.unwrap_or(self.now).saturating_since(self.now)
    }

    /// Asks the backend and the algorithm, which must say the same.
    pub(super) async fn demand(&mut self, key: &Key, demand: Demand) -> Told {
        self.note(key, Asked::Demand(demand));
        let answer = self.backend.decide(&self.algorithm, key, &demand).await;
        self.compare(key, demand, answer)
    }

    /// The same, where the backend need not tell more of the usual answer than that it is that.
    pub(super) async fn admit(&mut self, key: &Key, demand: Demand) -> Told {
        self.note(key, Asked::Admit(demand));
        match self.backend.admit(&self.algorithm, key, &demand) {
            Ok(()) => {
                let says = || "that it is admitted, with nothing to wait for".to_owned();
                let is_usual = |would_be: Decision| {
                    demand.is_plain()
                        && would_be.charge().is_some_and(|charge| charge.delay.is_zero())
                };
                let expected = self.agree(key, demand, says, is_usual);
                Told { expected, charged: None }
            }
            Err(decision) => {
                let answer = decision.await;
                self.compare(key, demand, answer)
            }
        }
    }

    fn compare(
        &mut self,
        key: &Key,
        demand: Demand,
        answer: Result<Decision, BackendError>,
    ) -> Told {
        let (answer, charged) = match answer {
            Ok(answer) => (rounded::<A, H>(answer), answer.charge()),
            Err(error) => self.fail(&format!("the backend failed: {error} ({error:?})")),
        };
        let is_answer = |would_be| rounded::<A, H>(would_be) == answer;
        let expected = self.agree(key, demand, || format!("{answer:?}"), is_answer);
        Told { expected, charged }
    }

    /// What the algorithm answers, which must agree with what the backend says.
    fn agree(
        &mut self,
        key: &Key,
        demand: Demand,
        says: impl FnOnce() -> String,
        agrees: impl Fn(Decision) -> bool,
    ) -> Decision {
        let now = self.now;
        let mut expected = None;
        self.with_states(key, |algorithm, state| {
            let would_be = algorithm.answer(state, now, &demand);
            let agrees = agrees(would_be);
            expected = expected.filter(|_| !agrees).or(Some(would_be));
            agrees
        });
        let expected = expected.expect("there is a state at least");
        if self.states.get(key).is_none_or(Vec::is_empty) {
            self.fail(&format!(
                "the backend says\n    {}\n  but the algorithm says\n    {:?}",
                says(),
                rounded::<A, H>(expected)
            ));
        }
        expected
    }

    pub(super) async fn take(&mut self, key: &Key, cost: impl Into<Cost>) -> Told {
        self.demand(key, Demand::exactly(cost.into())).await
    }

    pub(super) async fn peek(&mut self, key: &Key, cost: impl Into<Cost>) -> Told {
        self.demand(key, Demand::peek(cost.into())).await
    }

    /// Takes everything there is, so that the next is refused. At most a thousand times.
    pub(super) async fn exhaust(&mut self, key: &Key) {
        let each = self.part(4);
        for _ in 0..1_000 {
            if !self.take(key, each).await.is_allowed() {
                break;
            }
        }
        while self.demand(key, Demand::up_to(u64::MAX, Cost::ONE)).await.is_allowed() {
            // A log that is out of entries, and not of units, is taken from again later.
            if self.peek(key, Cost::ONE).await.is_allowed() {
                break;
            }
        }
    }

    /// Tells the backend and the algorithm what was in fact used.
    pub(super) async fn settle(&mut self, key: &Key, receipt: Receipt, actual: impl Into<Cost>) {
        let (actual, Receipt { expected, charged }) = (actual.into(), receipt);
        self.note(key, Asked::Settle(charged, actual));
        let now = self.now;
        self.with_states(key, |algorithm, state| {
            algorithm.settle(state, now, &expected, actual);
            true
        });
        if let Err(error) = self.backend.settle(&self.algorithm, key, &charged, actual).await {
            self.fail(&format!("the backend failed: {error} ({error:?})"));
        }
    }

    /// What the algorithm says, where the backend has not been asked.
    pub(super) fn expect(&mut self, key: &Key, demand: Demand) -> Decision {
        let now = self.now;
        let mut expected = None;
        self.with_states(key, |algorithm, state| {
            expected = Some(algorithm.answer(state, now, &demand));
            true
        });
        expected.expect("there is a state at least")
    }

    /// Runs `then` on the states that the backend may keep for `key`, which says of each whether
    /// the backend's answer agrees with it.
    fn with_states(&mut self, key: &Key, mut then: impl FnMut(&A, &mut A::State) -> bool) {
        let (algorithm, now) = (&self.algorithm, self.now);
        let initial = || Kept::new(algorithm.initial(now), algorithm.clone());
        let states = self.states.entry(key.clone()).or_insert_with(|| vec![initial()]);
        let mut next: Vec<Kept<A>> = Vec::new();
        for kept in states.drain(..) {
            let mut possible = vec![kept.clone()];
            if kept.by != *algorithm {
                // The limit has changed. The time since the state was last written may count by the
                // limit of then, or by that of now.
                let seen = kept.seen.iter().chain([&now]);
                possible.extend(seen.filter_map(|seen| kept.brought_up_to(*seen)));
                // A state that was idle under the limit of then may have been forgotten.
                if kept.by.idle_at(&kept.state) <= now {
                    possible.push(initial());
                }
            }
            for mut kept in possible {
                let before = kept.state.clone();
                if !then(algorithm, &mut kept.state) {
                    continue;
                }
                if kept.state != before {
                    kept = Kept::new(kept.state, algorithm.clone());
                } else if kept.by == *algorithm && kept.seen.last() != Some(&now) {
                    kept.seen.push(now);
                }
                if !next.contains(&kept) {
                    next.push(kept);
                }
            }
        }
        *states = next;
    }

    /// A part of what the limit ever holds, in each dimension that it counts; one unit at least.
    pub(super) fn part(&self, parts: u64) -> Cost {
        let capacity = self.algorithm.capacity();
        (0..Cost::DIMENSIONS).fold(Cost::ZERO, |cost, dimension| {
            let whole = capacity.get(dimension);
            // What is not counted has no bound.
            if whole == u64::MAX { cost } else { cost.with(dimension, (whole / parts).max(1)) }
        })
    }

    /// Times at which something may happen to the limit.
    pub(super) fn times(&self) -> Vec<Duration> {
        let tick = H::TICK;
        let mut times = vec![Duration::ZERO, tick];
        for policy in self.algorithm.policies(&PolicyName::DEFAULT) {
            let each = policy.window / u32::try_from(policy.quota.max(1)).unwrap_or(u32::MAX);
            for time in [each, policy.window / 3, policy.window] {
                times.extend([time.saturating_sub(tick), time, time + tick, time * 2]);
            }
        }
        times
    }

    pub(super) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(&what());
        }
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        let Self { scenario, algorithm, steps, last, .. } = self;
        let mut told = String::new();
        for Step { after, key, asked } in last {
            told += &format!("\n    after {after:?}: {key:?}: {asked:?}");
        }
        panic!(
            "the backend does not conform: {scenario}\n  under {algorithm:?}\n  at step {steps}, \
             the last being{told}\n  {what}"
        );
    }

    fn note(&mut self, key: &Key, asked: Asked) {
        self.steps += 1;
        if self.last.len() == TOLD {
            self.last.pop_front();
        }
        let after = self.now.saturating_since(self.begun);
        self.last.push_back(Step { after, key: key.clone(), asked });
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demand(demand) => demand.fmt(f),
            Self::Admit(demand) => write!(f, "admit {demand:?}"),
            Self::Settle(charge, actual) => {
                write!(f, "settle {:?} as {actual:?}", charge.cost)
            }
        }
    }
}

/// A decision with its times rounded up to the backend's tick, and without the notes of whose it is
/// and of the algorithm, which each backend may write in its own way: what they are good for shows
/// when it is settled.
pub(super) fn rounded<A: Algorithm, H: Harness<A>>(decision: Decision) -> Decision {
    let up = |time: Duration| {
        let tick = H::TICK.as_nanos().max(1);
        let nanos = time.as_nanos().next_multiple_of(tick);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    };
    match decision {
        Decision::Allow { mut snapshot, mut charge } => {
            snapshot.reset_after = up(snapshot.reset_after);
            charge.delay = up(charge.delay);
            charge.mark = 0;
            charge.holder = Holder::Backend;
            Decision::Allow { snapshot, charge }
        }
        Decision::Deny { mut snapshot, retry_after, violated } => {
            snapshot.reset_after = up(snapshot.reset_after);
            let retry_after = match retry_after {
                RetryAfter::After(time) => RetryAfter::After(up(time)),
                RetryAfter::Never => RetryAfter::Never,
            };
            Decision::Deny { snapshot, retry_after, violated }
        }
    }
}
