use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    error::{BackendError, BackendErrorKind},
    observe::outages::{Outages, Switch},
    time::{saturating_nanos, timer_now},
};

/// Whether a guarded backend is asked.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the states of every circuit breaker")]
pub enum BreakerState {
    /// It is asked.
    Closed,
    /// It failed, and one request is trying whether it answers again. All others go without it.
    HalfOpen,
    /// It failed, and is not asked.
    Open,
}

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Failures in a row that open it.
    pub(crate) failures: u32,
    pub(crate) first_back_off: Duration,
    pub(crate) longest_back_off: Duration,
    /// A probe that has not ended by then has been forgotten by whoever made it.
    pub(crate) longest_probe: Duration,
}

/// Keeps callers from a backend that fails.
///
/// All that a caller does while it is closed and nothing has failed is to load `word`. Everything
/// that changes it happens behind the lock.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: Settings,
    /// Failures in a row while closed, otherwise [`OPEN`] or [`HALF_OPEN`].
    word: AtomicU32,
    /// While open, when the next probe may begin; while half-open, when it counts as lost.
    due: AtomicU64,
    /// When a failure was last told, plus one.
    told: AtomicU64,
    schedule: Mutex<Schedule>,
    /// Instants are nanoseconds since then.
    began: Instant,
    observer: Outages,
}

#[derive(Debug)]
struct Schedule {
    /// The number of the latest probe: the end of an older one is not listened to.
    probe: u64,
    /// Back-offs without a recovery that lasted.
    in_a_row: u32,
    opened_at: u64,
    closed_at: u64,
    openings: u64,
    /// What callers are told while it is open.
    refusal: BackendError,
}

/// What a caller may do.
pub(crate) enum Entry {
    /// Ask the backend.
    Closed,
    /// Ask the backend, as the only one, and say how it went by this number.
    Probe(u64),
    /// Do without.
    Open,
}

/// How a probe went.
pub(crate) enum ProbeEnd<'e> {
    Answered,
    Failed(&'e BackendError),
    /// The caller went away before there was an answer.
    Dropped,
}

const OPEN: u32 = u32::MAX;
const HALF_OPEN: u32 = OPEN - 1;
/// The most failures that a setting can ask for.
pub(crate) const MOST_FAILURES: u32 = HALF_OPEN - 1;

impl Breaker {
    pub(crate) fn new(settings: Settings, observer: Outages) -> Self {
        let schedule = Schedule {
            probe: 0,
            in_a_row: 0,
            opened_at: 0,
            closed_at: 0,
            openings: 0,
            refusal: BackendError::new(BackendErrorKind::CircuitOpen),
        };
        Self {
            settings,
            word: AtomicU32::new(0),
            due: AtomicU64::new(0),
            told: AtomicU64::new(0),
            schedule: Mutex::new(schedule),
            began: timer_now(),
            observer,
        }
    }

    pub(crate) const fn observer(&self) -> &Outages {
        &self.observer
    }

    #[inline(always)]
    pub(crate) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Relaxed) < HALF_OPEN
    }

    /// Whether it is closed and the last call did not fail.
    #[inline(always)]
    pub(crate) fn is_calm(&self) -> bool {
        self.word.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.word.load(Ordering::Relaxed) {
            OPEN => BreakerState::Open,
            HALF_OPEN => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// How often it has opened, and how many probes there were.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let schedule = self.schedule.lock();
        (schedule.openings, schedule.probe)
    }

    /// The error of a call that was not made.
    pub(crate) fn refusal(&self) -> BackendError {
        self.schedule.lock().refusal.clone()
    }

    /// How long it is at least until the backend is asked again; never zero.
    pub(crate) fn asked_again_after(&self) -> Duration {
        let left = if self.is_closed() {
            Duration::ZERO
        } else {
            let due = self.due.load(Ordering::Relaxed);
            Duration::from_nanos(due.saturating_sub(self.now()))
        };
        left.max(self.settings.first_back_off)
    }

    /// Asks for leave to ask the backend.
    ///
    /// Open to half-open: when the back-off has passed, the first to come is the probe. Those who
    /// come while it is under way, and those who came before, do without.
    pub(crate) fn enter(&self) -> Entry {
        if self.is_closed() {
            return Entry::Closed;
        }
        if self.now() < self.due.load(Ordering::Relaxed) {
            return Entry::Open;
        }
        let mut schedule = self.schedule.lock();
        // Read behind the lock: somebody else may have been here.
        let now = self.now();
        if self.is_closed() {
            return Entry::Closed;
        }
        if now < self.due.load(Ordering::Relaxed) {
            return Entry::Open;
        }
        if self.state() == BreakerState::HalfOpen {
            // Whoever holds the probe does not poll it any more. It counts as failed, and its end,
            // should it come, is not listened to.
            let switch = self.reopen(&mut schedule, now, true);
            self.tell(schedule, &switch);
            return Entry::Open;
        }
        schedule.probe += 1;
        let probe = schedule.probe;
        self.set(HALF_OPEN, now.saturating_add(saturating_nanos(self.settings.longest_probe)));
        self.tell(schedule, &Switch::Probing);
        Entry::Probe(probe)
    }

    /// Notes an answer to a caller that was no probe.
    ///
    /// Failures are counted in a row, so an answer begins anew. One that comes late, when the
    /// breaker has opened, changes nothing: only a probe closes it.
    #[inline]
    pub(crate) fn answered(&self) {
        if !self.is_calm() {
            self.forgive();
        }
    }

    #[cold]
    fn forgive(&self) {
        let _schedule = self.schedule.lock();
        if self.is_closed() {
            self.word.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that the backend failed a caller that was no probe.
    ///
    /// Closed to open: at the last of so many failures in a row. Failures that come late, when the
    /// breaker has opened, change nothing.
    #[cold]
    pub(crate) fn failed(&self, error: &BackendError) {
        let mut schedule = self.schedule.lock();
        if !self.is_closed() {
            return;
        }
        let failures = self.word.load(Ordering::Relaxed) + 1;
        if failures < self.settings.failures {
            self.word.store(failures, Ordering::Relaxed);
            return;
        }
        let now = self.now();
        let closed_for = Duration::from_nanos(now.saturating_sub(schedule.closed_at));
        if closed_for >= self.nominal_back_off(schedule.in_a_row) {
            schedule.in_a_row = 0;
        }
        schedule.opened_at = now;
        schedule.openings += 1;
        schedule.refusal = refusal(error);
        let wait = self.back_off(&mut schedule, true);
        self.set(OPEN, now.saturating_add(saturating_nanos(wait)));
        self.tell(schedule, &Switch::Opened { error: error.clone(), wait });
    }

    /// Notes the end of a probe.
    ///
    /// Half-open to closed: all come back at once. What one instance asks is little for a server,
    /// and instances close at different times, because their back-offs do not end together.
    ///
    /// Half-open to open: the probe failed, and the next back-off is longer; or its caller went
    /// away, which says nothing, and it is as long as the last.
    #[cold]
    pub(crate) fn probe_ended(&self, probe: u64, end: ProbeEnd<'_>) {
        let mut schedule = self.schedule.lock();
        if schedule.probe != probe || self.state() != BreakerState::HalfOpen {
            return;
        }
        let now = self.now();
        let switch = match end {
            ProbeEnd::Answered => {
                schedule.closed_at = now;
                self.set(0, 0);
                let after = Duration::from_nanos(now.saturating_sub(schedule.opened_at));
                Switch::Closed { after }
            }
            ProbeEnd::Failed(error) => {
                schedule.refusal = refusal(error);
                self.reopen(&mut schedule, now, true)
            }
            ProbeEnd::Dropped => self.reopen(&mut schedule, now, false),
        };
        self.tell(schedule, &switch);
    }

    /// Tells of a failure, unless one was told not long ago.
    #[cold]
    pub(crate) fn complain(&self, error: &BackendError) {
        let now = self.now().saturating_add(1);
        let told = self.told.load(Ordering::Relaxed);
        let since = Duration::from_nanos(now.saturating_sub(told));
        if told != 0 && since < self.settings.longest_back_off {
            return;
        }
        let first = self.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            self.observer.failed(error);
        }
    }

    fn reopen(&self, schedule: &mut Schedule, now: u64, longer: bool) -> Switch {
        let wait = self.back_off(schedule, longer);
        self.set(OPEN, now.saturating_add(saturating_nanos(wait)));
        Switch::Reopened { wait }
    }

    /// A time between half the back-off and all of it: instances that lost a server together do
    /// not come back together.
    fn back_off(&self, schedule: &mut Schedule, longer: bool) -> Duration {
        if longer {
            schedule.in_a_row = schedule.in_a_row.saturating_add(1);
        }
        let most = saturating_nanos(self.nominal_back_off(schedule.in_a_row));
        // A hasher's keys are the only randomness in the standard library, and enough for this.
        let random = u128::from(RandomState::new().build_hasher().finish());
        let part = (u128::from(most / 2) * random) >> 64;
        // Less than half of a u64.
        Duration::from_nanos(most - most / 2 + part as u64)
    }

    /// The back-off without its jitter: the first, doubled each time, up to the longest.
    fn nominal_back_off(&self, in_a_row: u32) -> Duration {
        let Settings { first_back_off, longest_back_off, .. } = self.settings;
        let factor = 2_u32.saturating_pow(in_a_row.saturating_sub(1));
        first_back_off.saturating_mul(factor).min(longest_back_off)
    }

    fn set(&self, word: u32, due: u64) {
        // The time first: who reads the word and an old time asks again behind the lock.
        self.due.store(due, Ordering::Relaxed);
        self.word.store(word, Ordering::Release);
        self.observer.stands(match word {
            OPEN => 2,
            HALF_OPEN => 1,
            _ => 0,
        });
    }

    /// Tells of a change when the lock is free again: a subscriber may ask the same backend.
    fn tell(&self, schedule: MutexGuard<'_, Schedule>, switch: &Switch) {
        drop(schedule);
        self.observer.switched(switch);
    }

    fn now(&self) -> u64 {
        saturating_nanos(timer_now().saturating_duration_since(self.began))
    }
}

fn refusal(error: &BackendError) -> BackendError {
    BackendError::new(BackendErrorKind::CircuitOpen).with_source(error.clone())
}
