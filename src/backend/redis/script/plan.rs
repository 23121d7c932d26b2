//! Plans: one script, in which those of all their limits are.

use std::time::Duration;

use super::{
    Fields, Job, Numbers,
    ahead::{WriteAhead, at_turn, micros_of},
    begin, meter, number,
    sealed::Steps,
};
use crate::{
    algorithm::{
        FixedWindow, LeakyBucket, Plan, PlanState, Rule, RuleState, SlidingCounter, SlidingLog,
        SlidingWindow, TokenBucket,
    },
    error::BackendError,
    name::PolicyName,
    time::Timestamp,
};

/// All algorithms, and what is done with them.
macro_rules! with_all {
    ($($end:expr),+) => {
        concat!(
            include_str!("begin.lua"),
            include_str!("checks.lua"),
            include_str!("meter.lua"),
            include_str!("fixed_window.lua"),
            include_str!("sliding_window.lua"),
            include_str!("sliding_counter.lua"),
            include_str!("sliding_log.lua"),
            include_str!("plan.lua"),
            include_str!("state.lua"),
            $($end),+
        )
    };
}

/// Decides on limits on several keys as one.
pub(in crate::backend::redis) const JOINT: &str = with_all!(include_str!("joint.lua"));

impl Steps for Plan {
    const KIND: u64 = 6;
    const SOURCE: &'static str = with_all!("local decide = plan\n", include_str!("batch.lua"));

    fn on_server(&self) -> Self {
        self.map(|rule| rule.on_server())
    }

    fn write(&self, job: &Job, now: Timestamp, numbers: &mut Numbers) {
        self.write_ahead(Duration::ZERO, job, now, numbers);
    }

    fn read(&self, fields: &mut Fields<'_>) -> Result<(Option<Self>, PlanState), BackendError> {
        let mut others = Vec::new();
        let mut states = Vec::new();
        for (_, rule) in self.rules() {
            let (other, state) = rule.read(fields)?;
            others.push(other);
            states.push(state);
        }
        let other = others.iter().any(Option::is_some).then(|| {
            let mut others = others.into_iter();
            self.map(|rule| others.next().flatten().unwrap_or_else(|| rule.clone()))
        });
        Ok((other, self.state_of(states)))
    }

    fn is_sent_whole(&self) -> bool {
        self.rules().all(|(_, rule)| rule.is_sent_whole())
    }

    fn adds_up(&self) -> bool {
        self.rules().all(|(_, rule)| rule.adds_up())
    }
}

impl WriteAhead for Plan {
    fn write_ahead(&self, ahead: Duration, job: &Job, now: Timestamp, numbers: &mut Numbers) {
        begin(job, numbers);
        numbers.extend([self.rules().count() as u64, micros_of(ahead)].map(number));
        for (name, (dimension, rule)) in self.names().zip(self.rules()) {
            let letters = letters(name);
            let start = numbers.len();
            numbers.extend([number(rule.kind()), bytes(letters.len()), 0.0]);
            numbers.extend(letters);
            let begin = numbers.len();
            rule.write_ahead(ahead, &job.on(dimension), now, numbers);
            numbers[start + 2] = bytes(numbers.len() - begin);
        }
    }
}

/// How many bytes so many numbers take.
fn bytes(numbers: usize) -> f64 {
    number((numbers * size_of::<f64>()) as u64)
}

/// A name among numbers: eight letters in the place of each, the last filled up with zeros. Nobody
/// calculates with them. (A byte below 128 is never the end of what is not a number.)
fn letters(name: &PolicyName) -> Vec<f64> {
    let eights = name.as_str().as_bytes().chunks(size_of::<f64>());
    let letters = eights.map(|eight| {
        let mut letters = [0; size_of::<f64>()];
        letters[..eight.len()].copy_from_slice(eight);
        f64::from_le_bytes(letters)
    });
    letters.collect()
}

/// A limit of a plan has no script of its own.
macro_rules! rules {
    ($($rule:ident as $state:ident;)+) => {
        impl Rule {
            fn on_server(&self) -> Self {
                match self {
                    $(Self::$rule(rule) => Self::$rule(rule.on_server()),)+
                }
            }

            /// The place of its script among those in a plan's, and the kind of its state.
            const fn kind(&self) -> u64 {
                match self {
                    $(Self::$rule(_) => $rule::KIND,)+
                }
            }

            /// As a part of a plan: of those that count where it starts, by its turn.
            fn write_ahead(
                &self,
                ahead: Duration,
                job: &Job,
                now: Timestamp,
                numbers: &mut Numbers,
            ) {
                match self {
                    Self::FixedWindow(rule) => {
                        rule.write_ahead(ahead, &at_turn(ahead, job), now, numbers);
                    }
                    Self::SlidingWindow(rule) => {
                        rule.write_ahead(ahead, &at_turn(ahead, job), now, numbers);
                    }
                    Self::SlidingLog(rule) => {
                        rule.write_ahead(ahead, &at_turn(ahead, job), now, numbers);
                    }
                    Self::TokenBucket(rule) if !ahead.is_zero() => {
                        meter::write(&rule.numbers(), job, rule.held_ahead(ahead), numbers);
                    }
                    _ => self.write(job, now, numbers),
                }
            }

            fn write(&self, job: &Job, now: Timestamp, numbers: &mut Numbers) {
                match self {
                    $(Self::$rule(rule) => rule.write(job, now, numbers),)+
                }
            }

            fn read(
                &self,
                fields: &mut Fields<'_>,
            ) -> Result<(Option<Self>, RuleState), BackendError> {
                match self {
                    $(Self::$rule(rule) => {
                        let (other, state) = rule.read(fields)?;
                        Ok((other.map(Self::$rule), RuleState::$state(state)))
                    })+
                }
            }

            fn is_sent_whole(&self) -> bool {
                match self {
                    $(Self::$rule(rule) => rule.is_sent_whole(),)+
                }
            }

            fn adds_up(&self) -> bool {
                match self {
                    $(Self::$rule(rule) => rule.adds_up(),)+
                }
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
