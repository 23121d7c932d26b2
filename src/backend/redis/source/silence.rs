use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Since when calls for keys of a slot have had no answer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Whether there is any. As long as all are answered, that is all that is looked at.
    is_any: AtomicBool,
    since: Mutex<HashMap<u16, Instant>>,
}

/// So long whoever does not answer is waited for. Below what sentinels and clusters mostly take to
/// choose another, so that it is found soon after that, and above what a server may take for
/// something large.
const PATIENCE: Duration = Duration::from_secs(2);

impl Silence {
    /// A call of this slot has been answered.
    pub(super) fn ends(&self, slot: u16) {
        if self.is_any.load(Ordering::Relaxed) {
            let mut since = self.since();
            since.remove(&slot);
            self.is_any.store(!since.is_empty(), Ordering::Relaxed);
        }
    }

    /// A call of this slot has no answer so far. Whether something is to be done about that by now;
    /// then it is left in peace for as long again, and all others too.
    pub(super) fn has_lasted(&self, slot: u16, now: Instant) -> bool {
        let mut since = self.since();
        let began = *since.entry(slot).or_insert(now);
        let has_lasted = now.saturating_duration_since(began) >= PATIENCE;
        if has_lasted {
            since.clear();
        }
        self.is_any.store(!since.is_empty(), Ordering::Relaxed);
        has_lasted
    }

    fn since(&self) -> MutexGuard<'_, HashMap<u16, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_has_lasted_when_nobody_has_answered_for_some_time_and_then_begins_anew() {
        let (silence, begun) = (Silence::default(), crate::time::now());
        let at = |millis| begun + Duration::from_millis(millis);
        assert!(!silence.has_lasted(1, at(0)));
        assert!(!silence.has_lasted(1, at(1_999)));
        assert!(!silence.has_lasted(2, at(2_000)), "another slot's has just begun");
        assert!(silence.has_lasted(1, at(2_000)));
        assert!(!silence.has_lasted(1, at(2_001)));
        assert!(!silence.has_lasted(2, at(4_000)), "all are left in peace");
        assert!(silence.has_lasted(1, at(4_001)));
    }

    #[test]
    fn an_answer_ends_the_silence_of_its_slot_alone() {
        let (silence, begun) = (Silence::default(), crate::time::now());
        let later = begun + PATIENCE;
        assert!(!silence.has_lasted(1, begun) && !silence.has_lasted(2, begun));
        silence.ends(1);
        assert!(!silence.has_lasted(1, later));
        assert!(silence.has_lasted(2, later));
        silence.ends(3);
    }
}
