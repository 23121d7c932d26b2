//! A rule of your own, in the layer for any: so many attempts, and all of them are back after a
//! pause without one. For logins: who keeps guessing stays out.
//!
//! ```sh
//! cargo run --example custom_algorithm
//! ```
//!
//! The laws that a rule obeys stand at `Algorithm`; `tests/laws` shows how to hold one to them.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    Charge, Cost, Decision, Key, PolicyName, PolicySet, QuotaLayer, QuotaPolicy, RetryAfter,
    Snapshot, algorithm::Algorithm, time::Timestamp,
};

#[derive(Clone, Debug, PartialEq)]
struct Attempts {
    most: u64,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Used {
    units: u64,
    last: Timestamp,
}

impl Attempts {
    fn at(&self, now: Timestamp, state: Used) -> Used {
        if self.idle_at(&state) <= now {
            return self.initial(now);
        }
        // Should the clock have gone far back, the time was wrong, but not the use.
        Used { last: state.last.min(now.saturating_add(self.pause)), ..state }
    }

    fn snapshot(&self, now: Timestamp, used: &Used) -> Snapshot {
        let remaining = self.most.saturating_sub(used.units);
        Snapshot::new(self.most, remaining, self.idle_at(used).saturating_since(now))
    }
}

impl Algorithm for Attempts {
    type State = Used;

    fn initial(&self, _: Timestamp) -> Used {
        Used { units: 0, last: Timestamp::MIN }
    }

    fn decide(&self, state: &mut Used, now: Timestamp, cost: Cost) -> Decision {
        *state = self.at(now, *state);
        if state.units.saturating_add(cost.units()) <= self.most {
            if !cost.is_zero() {
                self.take(state, now, cost);
            }
            let snapshot = self.snapshot(now, state);
            return Decision::Allow { snapshot, charge: Charge::new(now, cost) };
        }
        let snapshot = self.snapshot(now, state);
        let is_possible = cost.units() <= self.most;
        let wait = RetryAfter::After(snapshot.reset_after);
        let retry_after = if is_possible { wait } else { RetryAfter::Never };
        Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST }
    }

    fn available(&self, state: &Used, now: Timestamp, each: Cost) -> u64 {
        let left = self.most.saturating_sub(self.at(now, *state).units);
        left.checked_div(each.units()).unwrap_or(u64::MAX)
    }

    fn take(&self, state: &mut Used, now: Timestamp, cost: Cost) {
        let Used { units, last } = self.at(now, *state);
        *state = Used { units: units.saturating_add(cost.units()), last: last.max(now) };
    }

    /// An attempt was made, whatever came of it: nothing is given back.
    fn refund(&self, _: &mut Used, _: Timestamp, _: &Charge, _: Cost) {}

    fn idle_at(&self, state: &Used) -> Timestamp {
        state.last.saturating_add(self.pause)
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.most, self.pause)]
    }

    fn capacity(&self) -> Cost {
        Cost::new(self.most)
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let pause = Duration::from_millis(300);
    let layer =
        QuotaLayer::new(Attempts { most: 3, pause }).key(|user: &&'static str| Key::from(*user));
    let mut login = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(|_| async { Ok::<_, BoxError>("wrong password".to_owned()) }));

    for expected in [3, 3] {
        let mut tried = 0;
        for _ in 0..4 {
            let answer = login.ready().await?.call("mallory").await;
            tried += u32::from(answer.is_ok());
            println!("{}", answer.unwrap_or_else(|error| error.to_string()));
        }
        assert_eq!(tried, expected);
        println!("… a pause …");
        tokio::time::sleep(pause).await;
    }
    Ok(())
}
