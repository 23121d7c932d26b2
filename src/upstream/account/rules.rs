//! The limits of a quota as a plan.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::super::{
    board::KnownLimit,
    dimension::Dimension,
    profile::{LimitShape, Profile},
};
use crate::{
    algorithm::{Plan, Rule, SlidingWindow, TokenBucket},
    cost::Cost,
    decision::{PolicySet, Snapshot},
    error::ConfigError,
    name::{Policies, PolicyName},
    quota::Quota,
    rejection::Denial,
};

/// A limit that was set by hand.
#[derive(Clone, Debug)]
pub(super) struct SetLimit {
    pub(super) name: Box<str>,
    pub(super) quota: Quota,
}

/// What the limits of a quota are made of.
#[derive(Debug)]
pub(super) struct Terms<'t> {
    pub(super) profile: &'t Profile,
    pub(super) set: &'t [SetLimit],
    /// What was told goes before what was set.
    pub(super) told: &'t [KnownLimit],
    /// The limits that were in force: they keep their places.
    pub(super) before: &'t [Placed],
    pub(super) jitter: Duration,
    /// By how much a call may go beyond what is reserved for it.
    pub(super) beyond: Cost,
    /// The largest request that has to fit beside that.
    pub(super) largest: Cost,
}

/// The limits that a quota is decided by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) plan: Plan,
    /// The limits in the places of the plan.
    pub(super) limits: Vec<Placed>,
    /// How many requests may be in progress at a time.
    pub(super) most: Option<u64>,
}

/// A limit in a plan.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) name: Box<str>,
    /// Which number of a cost it counts.
    pub(super) dimension: usize,
    /// How much there is in a window, if it is known.
    pub(super) limit: Option<u64>,
    pub(super) window: Duration,
    pub(super) back: Back,
}

/// How what was used of a limit comes back, and so for how long a request that was counted may be
/// held up before it goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Back {
    /// By and by: there is more of it meanwhile.
    Refills,
    /// All at once, for everybody: until then it is counted where it was.
    Midnight,
    /// When its window is over, which is counted as so much longer than the provider's, and as the
    /// jitter of the way there.
    Window(Duration),
}

impl Rules {
    /// The plan by what was set and what was told.
    ///
    /// A limit of the profile has its place whether it is known or not, so that what was used of it
    /// stays used when it is told. What a provider calls its own limits stands behind them, in the
    /// places that it had before: what was said of a place then is so now.
    ///
    /// # Errors
    ///
    /// The profile has more limits than a plan.
    pub(super) fn new(terms: &Terms<'_>) -> Result<Self, ConfigError> {
        let is_own = |known: &&KnownLimit| {
            terms.profile.limit_shapes().iter().all(|shape| *shape.name() != *known.name)
        };
        let mut further: Vec<_> = terms.told.iter().filter(is_own).collect();
        further.sort_by_key(|known| {
            let place = terms.before.iter().position(|placed| placed.name == known.name);
            place.unwrap_or(usize::MAX)
        });
        let all = Self::with(terms, &further);
        // What a provider calls its own limits is no reason to have none.
        all.or_else(|_| Self::with(terms, &[]))
    }

    fn with(terms: &Terms<'_>, further: &[&KnownLimit]) -> Result<Self, ConfigError> {
        let Terms { profile, set, told, jitter, beyond, largest, .. } = *terms;
        let place_of =
            |dimension: Dimension| profile.dimensions().iter().position(|own| *own == dimension);
        let mut builder = Plan::new();
        let (mut limits, mut most) = (Vec::new(), None::<u64>);
        for (index, shape) in profile.limit_shapes().iter().enumerate() {
            if shape.apart {
                continue;
            }
            let told = told.iter().find(|known| *known.name == *shape.name());
            let set = set.iter().find(|set| *set.name == *shape.name());
            let limit = told.map(|known| known.limit).or_else(|| set.map(|set| set.quota.limit()));
            if shape.dimension == Dimension::Concurrency {
                // It is of no time, so no rule of the plan counts it.
                most = most.into_iter().chain(limit).min();
                continue;
            }
            let Some(dimension) = place_of(shape.dimension) else { continue };
            let usual = if shape.midnight.is_some() { DAY } else { ASSUMED_WINDOW };
            let window = told
                .and_then(|known| known.window)
                .or_else(|| set.map(|set| set.quota.period()))
                .or_else(|| profile.window(index))
                .unwrap_or(usual);
            let back = match shape.refills {
                true => Back::Refills,
                false if calendar(shape, 0, window).is_some() => Back::Midnight,
                false => Back::Window(held_up(window, jitter)),
            };
            let (policy, rule) = match limit {
                Some(limit) => {
                    let (beyond, largest) = (beyond.get(dimension), largest.get(dimension));
                    let slack = Slack { jitter, beyond, largest };
                    (policy_name(shape.name()), rule(shape, limit, window, slack))
                }
                None => unknown(shape, profile.window(index), jitter),
            };
            builder = builder.limit_on(dimension, policy, rule);
            limits.push(Placed { name: shape.name().into(), dimension, limit, window, back });
        }
        for known in further {
            let Some(dimension) = place_of(known.dimension) else { continue };
            let window = known.window.unwrap_or(ASSUMED_WINDOW);
            let name = policy_name(&format!("told-{}", known.name));
            let rule = windowed(known.limit, window, jitter);
            builder = builder.limit_on(dimension, name, rule);
            let (name, limit) = (known.name.clone(), Some(known.limit));
            let back = Back::Window(held_up(window, jitter));
            limits.push(Placed { name, dimension, limit, window, back });
        }
        if limits.is_empty() {
            builder = builder.limit(PolicyName::from_static("unknown"), unbounded());
            let (limit, window, back) = (None, ASSUMED_WINDOW, Back::Refills);
            limits.push(Placed { name: "".into(), dimension: 0, limit, window, back });
        }
        Ok(Self { plan: builder.build()?, limits, most })
    }

    /// Whether nothing is known of any limit, so that it has to be tried out how much is borne.
    pub(super) fn is_unknown(&self) -> bool {
        self.most.is_none() && self.limits.iter().all(|placed| placed.limit.is_none())
    }

    /// The limits that are other than those before.
    pub(super) fn changes<'r>(
        &'r self,
        before: &'r Self,
    ) -> impl Iterator<Item = (&'r str, Option<u64>)> {
        let is_new = |placed: &&Placed| !before.limits.contains(placed);
        self.limits.iter().filter(is_new).map(|placed| (&*placed.name, placed.limit))
    }

    /// The same denial without the limits of which nothing is known: callers are not told of them.
    pub(super) fn known_only(&self, denial: &Denial) -> Denial {
        let is_known =
            |place: &usize| self.limits.get(*place).is_some_and(|placed| placed.limit.is_some());
        let known: Vec<usize> = (0..denial.policies.len()).filter(is_known).collect();
        let policies = known.iter().filter_map(|place| denial.policies.get(*place).cloned());
        let new_place = |place: usize| known.iter().position(|known| *known == place);
        let violated = (0..denial.policies.len())
            .filter(|place| denial.violated.contains(*place))
            .filter_map(new_place)
            .fold(PolicySet::EMPTY, PolicySet::with);
        let policy = new_place(denial.snapshot.policy).unwrap_or(0);
        let snapshot = Snapshot { policy, ..denial.snapshot };
        Denial::new(denial.retry_after, snapshot, violated, Policies::new(policies.collect()))
    }

    /// How much more of the limit at a place is counted as left here than the provider says there
    /// is, if it is more. `snapshot` is the standing of the limit that was nearest to refusing when
    /// the request was counted; of the others there was at least as large a part left.
    pub(super) fn excess(&self, snapshot: &Snapshot, place: usize, remaining: u64) -> Option<u64> {
        let counted = if snapshot.policy == place {
            snapshot.remaining
        } else {
            let limit = self.limits.get(place)?.limit?;
            let part = u128::from(snapshot.remaining) * u128::from(limit);
            u64::try_from(part / u128::from(snapshot.limit.max(1))).unwrap_or(u64::MAX)
        };
        counted.checked_sub(remaining).filter(|excess| *excess > 0)
    }

    /// What a call came to as far as it is believed: beyond what was `reserved` for it, no more
    /// than comes back in so many windows of the largest limit that counts it. A number that nobody
    /// can have used would be a debt for years.
    pub(super) fn believed(&self, reserved: Cost, actual: Cost) -> Cost {
        (0..Cost::DIMENSIONS).fold(actual, |cost, dimension| {
            let its = self.limits.iter().filter(|placed| placed.dimension == dimension);
            let largest = its.filter_map(|placed| placed.limit).max().unwrap_or(UNBOUNDED);
            let most = largest.saturating_mul(WINDOWS);
            let most = reserved.get(dimension).saturating_add(most);
            cost.with(dimension, actual.get(dimension).min(most))
        })
    }

    /// The place of a limit.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.limits.iter().position(|placed| *placed.name == *name)
    }
}

/// By how much what the provider counts may be ahead of what is counted here.
#[derive(Clone, Copy)]
struct Slack {
    /// By how much sooner or later than others a request may reach it.
    jitter: Duration,
    /// What an answer may have beyond what was reserved for it: the provider counts it when it is
    /// there, which is known here when it has come.
    beyond: u64,
    /// What there has to be room for all the same.
    largest: u64,
}

/// The rule that keeps inside a provider's limit.
fn rule(shape: &LimitShape, limit: u64, window: Duration, slack: Slack) -> Rule {
    if shape.refills {
        return refilling(limit, window, slack);
    }
    calendar(shape, limit, window).unwrap_or_else(|| windowed(limit, window, slack.jitter))
}

/// The rule of a limit that begins anew at a midnight, unless another window was set for it.
#[cfg(feature = "calendar")]
fn calendar(shape: &LimitShape, limit: u64, window: Duration) -> Option<Rule> {
    if window != DAY {
        return None;
    }
    let days = crate::algorithm::Calendar::days(shape.midnight.as_deref()?).ok()?;
    Some(crate::algorithm::FixedWindow::calendar(limit, days).into())
}

#[cfg(not(feature = "calendar"))]
const fn calendar(_: &LimitShape, _: u64, _: Duration) -> Option<Rule> {
    None
}

/// A bucket like the provider's, less the slack, which is missing once: what comes back is the
/// same. Where the slack is as much as all of it, one half is the bucket, and the other half comes
/// back in the time of a jitter: so what is late meets no more than there is.
fn refilling(limit: u64, window: Duration, slack: Slack) -> Rule {
    let Slack { jitter, beyond, largest } = slack;
    let late = u128::from(limit) * jitter.as_nanos() / window.as_nanos().max(1) + 1;
    let late = u64::try_from(late).unwrap_or(u64::MAX);
    // A small bucket has no room for a large answer: then it is better owed. What is next to
    // nothing is no reason for another rule.
    let step = (limit / NEXT_TO_NOTHING).max(1);
    let beyond = beyond.min(limit / MOST_BEYOND) / step * step;
    if let Some(burst @ 1..) = limit.checked_sub(late) {
        let beyond = beyond.min(burst.saturating_sub(largest.max(1)));
        return TokenBucket::new(quota(limit, window)).burst(burst - beyond).into();
    }
    let half = limit.div_ceil(2).max(largest.min(limit));
    match limit - half {
        0 => TokenBucket::new(quota(limit, window.saturating_add(jitter))).burst(half.max(1)),
        rest => TokenBucket::new(quota(rest, jitter)).burst(half),
    }
    .into()
}

/// Never more than the limit in any window, wherever the provider's begin. It is the same algorithm
/// for every limit, as one leaves no state to another: a limit that rises, or that instances know
/// otherwise for a while, would forget what was used.
fn windowed(limit: u64, window: Duration, jitter: Duration) -> Rule {
    let longer = window.saturating_add(lateness(window, jitter));
    let window = SlidingWindow::new(quota(limit, longer));
    window.segments(SlidingWindow::MAX_SEGMENTS).unwrap_or(window).into()
}

/// How much later one request may reach the provider than it was counted, by as much as another may
/// be early: its window is longer here by as much.
fn lateness(window: Duration, jitter: Duration) -> Duration {
    jitter.saturating_add(held_up(window, jitter))
}

/// For how long a request that was counted may be held up. Of a long window a small part is time
/// enough for turns, and of a short one more would be missing than they are worth.
fn held_up(window: Duration, jitter: Duration) -> Duration {
    jitter.min(window / MOST_HELD_UP).saturating_add(window / HELD_UP)
}

fn quota(limit: u64, window: Duration) -> Quota {
    let window = window.clamp(Duration::from_millis(1), Quota::MAX_PERIOD);
    Quota::new(limit.min(Quota::MAX_LIMIT), window).unwrap_or(Quota::CLOSED)
}

/// A limit that nobody knows yet here: so much that it never binds. Others may know it: what is
/// used of a window counts with theirs. A bucket without a rate would let what they have used drain
/// at once, and what is used of a day without a limit may be their debt for many, so these have
/// names of their own.
fn unknown(shape: &LimitShape, window: Option<Duration>, jitter: Duration) -> (PolicyName, Rule) {
    match window {
        Some(window) if !shape.refills && shape.midnight.is_none() => {
            (policy_name(shape.name()), windowed(Quota::MAX_LIMIT, window, jitter))
        }
        _ => (policy_name(&format!("unknown-{}", shape.name())), unbounded()),
    }
}

fn unbounded() -> Rule {
    TokenBucket::new(Quota::per_second(UNBOUNDED)).into()
}

/// The name as a policy's: what a provider calls its own need not be one. It depends on nothing
/// else, as all instances know by it what was used. Of two names that are spelled alike, a hash
/// tells which it is.
fn policy_name(name: &str) -> PolicyName {
    PolicyName::new(name).unwrap_or_else(|_| {
        let spelled = name.chars().take(MAX_SPELLED).map(|letter| match letter {
            'a'..='z' | '0'..='9' => letter,
            'A'..='Z' => letter.to_ascii_lowercase(),
            _ => '-',
        });
        let spelled: String = spelled.collect();
        let name = PolicyName::new(format!("limit-{spelled}-{:016x}", fnv(name)));
        name.expect("it has only letters that a name may have, and few of them")
    })
}

/// FNV-1a, which is the same in every process.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// More than is used in a second of anything.
const UNBOUNDED: u64 = 1_000_000_000;
/// No call uses as much as is there in so many windows.
const WINDOWS: u64 = 16;
/// The letters of a name that are to be read in a policy's.
const MAX_SPELLED: usize = 32;
/// The window of a limit of which nobody says it.
const ASSUMED_WINDOW: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// The part of a window for which a request may be held up: 42 seconds of a day,
const HELD_UP: u32 = 2_048;
/// and beside it for the jitter, but no more than this part: 234 milliseconds of a minute.
const MOST_HELD_UP: u32 = 256;
/// The part of a bucket that is left for answers that go beyond what was reserved.
const MOST_BEYOND: u64 = 32;
const NEXT_TO_NOTHING: u64 = 1_024;
