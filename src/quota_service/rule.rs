use std::{fmt, sync::Arc, time::Duration};

use super::counts::Counts;
use crate::{
    algorithm::{self, Plan},
    limiter::Limit,
};

/// The unit of time of a limit, as Envoy knows it. A month has thirty days and a year 365.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "they are those of the protocol")]
pub enum Unit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
    /// Thirty days.
    Month,
    /// 365 days.
    Year,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 7] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// How long it is.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        })
    }

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The unit of this name, in whatever case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name().eq_ignore_ascii_case(name))
    }

    /// The unit that is so long.
    pub(super) fn lasting(duration: Duration) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.duration() == duration)
    }
}

/// What the states of a limit are like. One kind cannot go on from the state of another, so each
/// has a count of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Fixed windows: those of most rules, and of limits that come with a request.
    Window,
    /// A token bucket or a leaky bucket.
    Meter,
    SlidingCounter,
    SlidingLog,
    SlidingWindow,
}

impl Kind {
    pub(super) const fn of(rule: &algorithm::Rule) -> Self {
        use algorithm::Rule;

        match rule {
            Rule::FixedWindow(_) => Self::Window,
            Rule::LeakyBucket(_) | Rule::TokenBucket(_) => Self::Meter,
            Rule::SlidingCounter(_) => Self::SlidingCounter,
            Rule::SlidingLog(_) => Self::SlidingLog,
            Rule::SlidingWindow(_) => Self::SlidingWindow,
        }
    }

    /// The part of a key that tells it. A fixed window needs none.
    pub(super) const fn key_part(self) -> Option<&'static str> {
        match self {
            Self::Window => None,
            Self::Meter => Some("meter"),
            Self::SlidingCounter => Some("sliding-counter"),
            Self::SlidingLog => Some("sliding-log"),
            Self::SlidingWindow => Some("sliding-window"),
        }
    }
}

/// A limit as a rule or a request gives it: what is decided by, and what is told of it.
#[derive(Clone, Debug)]
pub struct RuleLimit {
    pub(super) limit: Limit<Plan>,
    pub(super) kind: Kind,
    pub(super) requests: u64,
    pub(super) period: Duration,
    pub(super) unit: Option<Unit>,
    pub(super) name: Option<Arc<str>>,
}

impl RuleLimit {
    /// The requests in each unit of time.
    pub const fn requests_per_unit(&self) -> u64 {
        self.requests
    }

    /// The unit of time; none if the period is no unit.
    pub const fn unit(&self) -> Option<Unit> {
        self.unit
    }

    /// The name that the rules give it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// What the rules say of the descriptors that end at a node.
pub(super) struct Rule {
    /// Where it stands in the rules, for counts and metrics: `domain/key=value/key`.
    pub(super) path: Box<str>,
    /// None: unlimited.
    pub(super) limit: Option<RuleLimit>,
    pub(super) replaces: Vec<Box<str>>,
    pub(super) shadow: bool,
    pub(super) quota: bool,
    pub(super) detailed: bool,
    pub(super) count_refused: bool,
    pub(super) counts: Arc<Counts>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("path", &self.path)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
