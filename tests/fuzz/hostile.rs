//! Gives what a fuzzer makes up to the target that `TARGET` names.

#![no_main]

#[path = "../hostile/targets.rs"]
mod targets;

use std::{env, sync::LazyLock};

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = env::var("TARGET").expect("TARGET names what is fuzzed");
    let mut all = targets::TARGETS.iter().copied();
    all.find(|(own, _)| *own == name).unwrap_or_else(|| panic!("there is no target {name}"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.1)(input));
