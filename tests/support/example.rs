//! Examples that are programs, for tests of them.

use std::{path::PathBuf, process::Command};

/// An example, built as this test was: cargo does not build examples for one test.
pub(crate) fn build(example: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test is a program");
    let profile = own.ancestors().nth(2).expect("it lies in deps of its profile");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--all-features", "--example", example, "--target-dir"]);
    cargo.arg(profile.parent().expect("the target folder"));
    // What cargo tells a test of its package, build scripts would take for news about theirs (ring's
    // does), and all that stands on them would be built anew, each time.
    for (name, _) in std::env::vars_os() {
        let own = name.to_str().unwrap_or_default();
        if own.starts_with("CARGO_PKG_") || own.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "{example} does not build");
    profile.join("examples").join(example)
}
