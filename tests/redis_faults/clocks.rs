//! Instances whose clocks are wrong, beside a server whose clock is right.
//!
//! The wrong clock is a real one: another process of this test, in which `clock_gettime` says so.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName, Quota, RetryAfter,
    algorithm::{FixedWindow, SlidingWindow, TokenBucket},
    backend::redis::{RedisBuilder, Scripted, Server},
};

use crate::servers::{PATIENCE, Proxy, Standalone};

/// What a machine without a battery says after a start, or one whose clock is set to and fro.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *at) {
    static _Atomic unsigned calls;
    const char *clock = getenv("QUOTA_CLOCK");
    int failed = syscall(SYS_clock_gettime, id, at);
    if (failed || id != CLOCK_REALTIME || !clock) return failed;
    if (!strcmp(clock, "1970")) at->tv_sec %= 1000;
    else at->tv_sec += (calls++ % 2 ? 1 : -1) * 400L * 86400;
    return 0;
}
"#;

const TIMEOUT: Duration = Duration::from_millis(300);

fn limiter<A: Scripted>(
    url: &str,
    algorithm: A,
    name: &'static str,
) -> Limiter<A, tower_quota::backend::redis::Redis<A, Server>> {
    let source = Server::open(url).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static(name))
        .timeout(PATIENCE)
        .remember_refusals(Duration::from_secs(60));
    Limiter::new(algorithm, redis.build())
}

/// Takes `cost`, and says what is left or when to come back.
async fn ask<A: Scripted>(
    limiter: &Limiter<A, tower_quota::backend::redis::Redis<A, Server>>,
    cost: u64,
) -> Result<u64, Duration> {
    let decision = limiter.decide(&Key::GLOBAL, Cost::new(cost)).await.expect("it decides");
    match decision.retry_after() {
        None => Ok(decision.snapshot().remaining),
        Some(RetryAfter::After(wait)) => Err(wait),
        Some(RetryAfter::Never) => panic!("{cost} is never allowed"),
    }
}

/// Thirty of what the others have left, then more than there is. Gives the report of when to come back.
async fn is_told_the_same<A: Scripted>(url: &str, algorithm: A, name: &'static str) -> String {
    let limiter = limiter(url, algorithm, name);
    assert_eq!(ask(&limiter, 30).await, Ok(10), "{name}");
    let refused = ask(&limiter, 50).await.expect_err("ten are left");
    let remembered = ask(&limiter, 50).await.expect_err("ten are left");
    assert!(remembered <= refused, "{name}: {remembered:?} is after {refused:?}");
    format!("{name} {}", refused.as_nanos())
}

/// The other process. Its standard output is its report.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of another test"]
async fn an_instance_with_a_wrong_clock() {
    let (url, hole) = (std::env::var("QUOTA_SERVER"), std::env::var("QUOTA_HOLE"));
    let (url, hole) = (url.expect("its server"), hole.expect("one that does not answer"));
    println!("{}", is_told_the_same(&url, bucket(), "bucket").await);
    println!("{}", is_told_the_same(&url, FixedWindow::from_first_hit(quota()), "window").await);
    println!("{}", is_told_the_same(&url, SlidingWindow::new(quota()), "sliding").await);

    let source = Server::open(hole).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("hole")).timeout(TIMEOUT);
    let limiter = Limiter::new(bucket(), redis.build());
    let begun = Instant::now();
    let told = limiter.decide(&Key::GLOBAL, Cost::ONE).await.expect_err("nobody answers");
    let waited = begun.elapsed();
    let silent = [BackendErrorKind::TimedOut, BackendErrorKind::Unreachable];
    assert!(silent.contains(&told.kind()), "{told:?}");
    assert!(waited >= TIMEOUT && waited < PATIENCE / 2, "{waited:?}");

    #[expect(clippy::disallowed_methods, reason = "whether the clock is wrong")]
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let (one, other) = (now().as_secs(), now().as_secs());
    println!("clock {one} {other}");
}

fn quota() -> Quota {
    Quota::per_day(100)
}

fn bucket() -> TokenBucket {
    TokenBucket::new(quota())
}

/// Builds the shim, and runs the other process under it. Gives its report.
fn run_with(clock: &str, server: &Standalone, hole: &Proxy) -> String {
    let directory =
        std::env::temp_dir().join(format!("quota-clock-{}-{clock}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    fs::write(&source, SHIM).expect("the shim is written");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .status()
        .expect("the C compiler by which Rust links");
    assert!(compiled.success(), "the shim does not compile");
    let run = Command::new(std::env::current_exe().expect("this test"))
        .args(["clocks::an_instance_with_a_wrong_clock", "--exact", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", &library)
        .env("QUOTA_CLOCK", clock)
        .env("QUOTA_SERVER", server.url())
        .env("QUOTA_HOLE", hole.url())
        .stderr(Stdio::inherit())
        .output()
        .expect("a process");
    fs::remove_dir_all(&directory).expect("it is ours");
    let report = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{report}");
    report
}

/// What the report says behind `name`.
fn numbers(report: &str, name: &str) -> Vec<u64> {
    let line = report.lines().find_map(|line| line.split_once(&format!("{name} ")));
    let (_, numbers) = line.unwrap_or_else(|| panic!("{name} is missing: {report}"));
    numbers.split(' ').map(|number| number.parse().expect("a number")).collect()
}

/// An honest instance takes sixty before, and is refused the same after.
async fn differs_in_nothing(clock: &str) -> String {
    let server = Standalone::start();
    let hole = Proxy::start(server.addr());
    hole.black_hole();
    let url = server.url();
    let (one, two, three) = (
        limiter(&url, bucket(), "bucket"),
        limiter(&url, FixedWindow::from_first_hit(quota()), "window"),
        limiter(&url, SlidingWindow::new(quota()), "sliding"),
    );
    let begun = Instant::now();
    let left = (ask(&one, 60).await, ask(&two, 60).await, ask(&three, 60).await);
    assert_eq!(left, (Ok(40), Ok(40), Ok(40)));
    let report = run_with(clock, &server, &hole);
    let refused = [
        ("bucket", ask(&one, 50).await),
        ("window", ask(&two, 50).await),
        ("sliding", ask(&three, 50).await),
    ];
    for (name, refused) in refused {
        let own = refused.expect_err("ten are left");
        let its = Duration::from_nanos(numbers(&report, name)[0]);
        assert!(own <= its && its - own <= begun.elapsed(), "{name}: {its:?}, then {own:?}");
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_in_1970_decides_as_all_others() {
    let report = differs_in_nothing("1970").await;
    assert!(numbers(&report, "clock").iter().all(|seconds| *seconds < 1_000), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_clock_jumps_by_years_decides_as_all_others() {
    let report = differs_in_nothing("jumps").await;
    let seconds = numbers(&report, "clock");
    assert!(seconds[0].abs_diff(seconds[1]) > 365 * 86_400, "{report}");
}
