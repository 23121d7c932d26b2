//! The cases of a property test.

use proptest::test_runner::{Config, RngSeed};

/// So many, the same each time, and no file of old failures: they become tests of their own.
pub(crate) fn cases(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(0x71AE),
        failure_persistence: None,
        ..Config::default()
    }
}
