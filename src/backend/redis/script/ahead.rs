//! Windows that give out turns before they come: the scripts of the windows, with a time.

use std::time::Duration;

use super::{Fields, Job, Numbers, begin, micros, number, sealed::Steps};
use crate::{
    algorithm::{Ahead, Algorithm, FixedWindow, Plan, SlidingLog, SlidingWindow},
    decision::Charge,
    error::BackendError,
    time::{Timestamp, saturating_nanos},
};

/// How the numbers of a job are written for a window whose turns are given out so long before they
/// come.
pub(super) trait WriteAhead {
    fn write_ahead(&self, ahead: Duration, job: &Job, now: Timestamp, numbers: &mut Numbers);
}

/// In whole microseconds, rounded down: no turn is farther away.
pub(super) fn micros_of(ahead: Duration) -> u64 {
    saturating_nanos(ahead) / 1_000
}

/// The job, of which a charge counts where it was to start: there it comes back to.
pub(super) fn at_turn(ahead: Duration, job: &Job) -> Job {
    match job {
        Job::Settle(charge, actual) if !ahead.is_zero() => {
            let turn = charge.at.saturating_add(charge.delay);
            Job::Settle(Charge { at: turn, ..*charge }, *actual)
        }
        job => *job,
    }
}

fn as_it_is(_: Duration, job: &Job) -> Job {
    *job
}

impl WriteAhead for FixedWindow {
    fn write_ahead(&self, ahead: Duration, job: &Job, now: Timestamp, numbers: &mut Numbers) {
        begin(job, numbers);
        let [limit, kind, length, first] = self.numbers();
        let all = [limit, kind, length / 1_000, first / 1_000, micros_of(ahead)];
        numbers.extend(all.map(number));
        let borders = self.borders_around(now).into_iter().flatten();
        numbers.extend(borders.map(|border| number(micros(border))));
    }
}

impl WriteAhead for SlidingWindow {
    fn write_ahead(&self, ahead: Duration, job: &Job, _: Timestamp, numbers: &mut Numbers) {
        begin(job, numbers);
        let [limit, width, segments] = self.numbers();
        numbers.extend([limit, width / 1_000, segments, micros_of(ahead)].map(number));
    }
}

impl WriteAhead for SlidingLog {
    fn write_ahead(&self, ahead: Duration, job: &Job, _: Timestamp, numbers: &mut Numbers) {
        begin(job, numbers);
        let [limit, period, most_entries] = self.numbers();
        numbers.extend([limit, period / 1_000, most_entries, micros_of(ahead)].map(number));
    }
}

macro_rules! scripted {
    ($($window:ident, $turned:ident;)+) => {$(
        impl Steps for Ahead<$window> {
            const KIND: u64 = $window::KIND;
            const SOURCE: &'static str = $window::SOURCE;

            fn on_server(&self) -> Self {
                let ahead = Duration::from_micros(micros_of(self.time_ahead()));
                self.window().on_server().ahead(ahead)
            }

            fn write(&self, job: &Job, now: Timestamp, numbers: &mut Numbers) {
                let ahead = self.time_ahead();
                self.window().write_ahead(ahead, &$turned(ahead, job), now, numbers);
            }

            fn read(
                &self,
                fields: &mut Fields<'_>,
            ) -> Result<(Option<Self>, <Self as Algorithm>::State), BackendError> {
                let (other, state) = self.window().read(fields)?;
                Ok((other.map(|window| window.ahead(self.time_ahead())), state))
            }

            fn is_sent_whole(&self) -> bool {
                self.window().is_sent_whole()
            }

            /// Those that do not start together do not.
            fn adds_up(&self) -> bool {
                self.window().adds_up() && self.time_ahead().is_zero()
            }
        }
    )+};
}

scripted! {
    FixedWindow, at_turn;
    SlidingWindow, at_turn;
    SlidingLog, at_turn;
    // Each of its limits by itself.
    Plan, as_it_is;
}
