use super::{
    Algorithm, FixedWindow, LeakyBucket, MeterState, Portion, Share, SlidingCounter,
    SlidingCounterState, SlidingLog, SlidingLogState, SlidingWindow, SlidingWindowState,
    TokenBucket, WindowState,
};
use crate::{
    cost::Cost,
    decision::{Charge, Decision},
    name::{PolicyName, QuotaPolicy},
    time::Timestamp,
};

/// Any of the algorithms, where it is chosen at run time: a limit of a [`Plan`](super::Plan).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// See [`FixedWindow`].
    FixedWindow(FixedWindow),
    /// See [`LeakyBucket`].
    LeakyBucket(LeakyBucket),
    /// See [`SlidingCounter`].
    SlidingCounter(SlidingCounter),
    /// See [`SlidingLog`].
    SlidingLog(SlidingLog),
    /// See [`SlidingWindow`].
    SlidingWindow(SlidingWindow),
    /// See [`TokenBucket`].
    TokenBucket(TokenBucket),
}

/// The state of a [`Rule`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RuleState {
    /// Of a token bucket or a leaky bucket.
    Meter(MeterState),
    /// Of a fixed window.
    Window(WindowState),
    /// Of a sliding counter.
    SlidingCounter(SlidingCounterState),
    /// Of a sliding log.
    SlidingLog(SlidingLogState),
    /// Of a sliding window.
    SlidingWindow(SlidingWindowState),
}

macro_rules! rules {
    ($($rule:ident as $state:ident;)+) => {
        $(
            impl From<$rule> for Rule {
                fn from(rule: $rule) -> Self {
                    Self::$rule(rule)
                }
            }
        )+

        /// Runs `$body` with the rule and its part of the state; a state of another kind, left by
        /// a rule that was replaced, is begun anew at `$now`.
        macro_rules! with_state {
            ($self:ident, $given:ident, $now:expr, |$inner:ident, $of:ident| $body:expr) => {
                match $self {
                    $(Self::$rule($inner) => {
                        if !matches!($given, RuleState::$state(_)) {
                            *$given = RuleState::$state($inner.initial($now));
                        }
                        match $given {
                            RuleState::$state($of) => $body,
                            _ => unreachable!("the state was just made to be of this kind"),
                        }
                    })+
                }
            };
        }

        /// The same for a state that is only looked at.
        macro_rules! with_state_ref {
            ($self:ident, $given:ident, $now:expr, |$inner:ident, $of:ident| $body:expr) => {
                match $self {
                    $(Self::$rule($inner) => match $given {
                        RuleState::$state($of) => $body,
                        _ => {
                            let $of = &$inner.initial($now);
                            $body
                        }
                    })+
                }
            };
        }

        /// Runs `$body` with the rule.
        macro_rules! with_rule {
            ($self:ident, |$inner:ident| $body:expr) => {
                match $self {
                    $(Self::$rule($inner) => $body,)+
                }
            };
        }

        impl Algorithm for Rule {
            type State = RuleState;

            fn initial(&self, now: Timestamp) -> RuleState {
                match self {
                    $(Self::$rule(rule) => RuleState::$state(rule.initial(now)),)+
                }
            }

            fn decide(&self, state: &mut RuleState, now: Timestamp, cost: Cost) -> Decision {
                with_state!(self, state, now, |rule, state| rule.decide(state, now, cost))
            }

            fn available(&self, state: &RuleState, now: Timestamp, each: Cost) -> u64 {
                with_state_ref!(self, state, now, |rule, state| rule.available(state, now, each))
            }

            fn take(&self, state: &mut RuleState, now: Timestamp, cost: Cost) {
                with_state!(self, state, now, |rule, state| rule.take(state, now, cost));
            }

            fn refund(&self, state: &mut RuleState, now: Timestamp, charge: &Charge, cost: Cost) {
                with_state!(self, state, now, |rule, state| rule.refund(state, now, charge, cost));
            }

            fn idle_at(&self, state: &RuleState) -> Timestamp {
                with_state_ref!(self, state, Timestamp::MIN, |rule, state| rule.idle_at(state))
            }

            fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
                with_rule!(self, |rule| rule.policies(name))
            }

            fn capacity(&self) -> Cost {
                with_rule!(self, |rule| rule.capacity())
            }
        }

        impl Rule {
            /// Whether a state is of its kind, so that it can go on with it.
            pub(super) const fn has(&self, state: &RuleState) -> bool {
                match self {
                    $(Self::$rule(_) => matches!(state, RuleState::$state(_)),)+
                }
            }
        }

        impl Rule {
            /// The same rule for who leaves so much to others. Where it cannot be asked so, itself.
            pub(super) fn leaving(&self, left: u64) -> Self {
                match self {
                    Self::TokenBucket(bucket) => Self::TokenBucket(bucket.leaving(left)),
                    Self::SlidingWindow(window) => Self::SlidingWindow(window.leaving(left)),
                    other => other.clone(),
                }
            }
        }

        impl Share for Rule {
            fn share(&self, portion: Portion) -> Self {
                with_rule!(self, |rule| rule.share(portion).into())
            }
        }
    };
}

rules! {
    FixedWindow as Window;
    LeakyBucket as Meter;
    SlidingCounter as SlidingCounter;
    SlidingLog as SlidingLog;
    SlidingWindow as SlidingWindow;
    TokenBucket as Meter;
}
