use std::sync::atomic::{AtomicU64, Ordering};

/// How often a rule has decided, and how.
#[derive(Debug, Default)]
pub(super) struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    shadowed: AtomicU64,
}

/// How often a rule has decided since it was first loaded, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RuleCounts {
    /// Where the rule stands: `domain/key=value/key`.
    pub rule: String,
    /// Descriptors that it let pass.
    pub admitted: u64,
    /// Descriptors that it refused.
    pub refused: u64,
    /// Descriptors that it would have refused, were it not in shadow mode.
    pub shadowed: u64,
}

/// What a rule said of a descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Admitted,
    Refused,
    Shadowed,
}

impl Counts {
    /// Notes what was decided. `label` tells the rule in metrics.
    pub(super) fn decided(&self, outcome: Outcome, label: impl FnOnce() -> String) {
        let counter = match outcome {
            Outcome::Admitted => &self.admitted,
            Outcome::Refused => &self.refused,
            Outcome::Shadowed => &self.shadowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "tower_quota_rule_decisions_total",
            "rule" => label(),
            "result" => outcome.name()
        )
        .increment(1);
        #[cfg(not(feature = "metrics"))]
        let _ = label;
    }

    /// Takes over what the rule has counted before it was loaded anew.
    pub(super) fn go_on_from(&self, before: &Self) {
        let counters = [
            (&self.admitted, &before.admitted),
            (&self.refused, &before.refused),
            (&self.shadowed, &before.shadowed),
        ];
        for (own, before) in counters {
            own.fetch_add(before.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self, rule: &str) -> RuleCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RuleCounts {
            rule: rule.into(),
            admitted: read(&self.admitted),
            refused: read(&self.refused),
            shadowed: read(&self.shadowed),
        }
    }
}

#[cfg(feature = "metrics")]
impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Shadowed => "shadowed",
        }
    }
}
