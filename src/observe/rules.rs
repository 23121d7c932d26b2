//! What other rules change for those that they are about.

/// Tells that a rule counts from nothing, since its algorithm is of another kind than before.
#[cold]
pub(crate) fn begins_anew(rule: &str) {
    let _ = rule;
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_quota", rule,
        "the algorithm of a rule is of another kind now: what was used under the one before does \
         not count"
    );
}
