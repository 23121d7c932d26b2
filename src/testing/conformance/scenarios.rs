//! One promise each, so that a failure says which. Every answer is compared with the algorithm's:
//! see [`Trial::demand`].

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use super::{Harness, trial::Trial};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    cost::Cost,
    decision::{Demand, RetryAfter},
    key::Key,
};

type Tried<'t, 'h, A, H> = &'t mut Trial<'h, A, H>;

pub(super) async fn a_limit_admits_what_it_holds<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        for parts in [1, 3, u64::MAX] {
            let each = trial.part(parts);
            for _ in 0..8 {
                trial.take(&key, each).await;
            }
        }
        trial.take(&key, u64::MAX).await;
        trial.take(&key, 0).await;
    }
}

/// To be told no more than that it is admitted comes to the same, on a new key, on a known one and
/// where the answer is another.
pub(super) async fn to_be_told_less_changes_nothing<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        for parts in [8, 3, 2, 1] {
            let each = Demand::exactly(trial.part(parts));
            for _ in 0..4 {
                trial.admit(&key, each).await;
            }
            trial.peek(&key, 0).await;
        }
        trial.admit(&key, Demand::exactly(Cost::new(u64::MAX))).await;
        trial.admit(&key, Demand::up_to(3, Cost::ONE)).await;
        trial.admit(&key, Demand::peek(Cost::ONE)).await;
        trial.take(&key, Cost::ONE).await;
    }
}

pub(super) async fn a_refusal_changes_nothing<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    let key = Key::from("alice");
    trial.exhaust(&key).await;
    for _ in 0..4 {
        for _ in 0..3 {
            trial.take(&key, Cost::ONE).await;
            trial.take(&key, trial.part(1)).await;
        }
        let refused = trial.take(&key, Cost::ONE).await;
        let Some(RetryAfter::After(wait)) = refused.retry_after() else {
            return;
        };
        // Refused until then, whoever else was refused in the meantime, and allowed at it.
        trial.advance(wait / 2);
        trial.take(&key, Cost::ONE).await;
        trial.advance(wait - wait / 2);
        trial.take(&key, Cost::ONE).await;
    }
    // A new key's first refusal is no different.
    let new = Key::from("bob");
    let everything = trial.algorithm.capacity().times(2);
    for _ in 0..3 {
        trial.take(&new, everything).await;
    }
    trial.take(&new, trial.part(1)).await;
}

pub(super) async fn a_peek_takes_nothing<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        for _ in 0..3 {
            for _ in 0..20 {
                trial.peek(&key, trial.part(1)).await;
                trial.peek(&key, Cost::ONE).await;
            }
            trial.peek(&key, Cost::ZERO).await;
            trial.take(&key, Cost::ONE).await;
        }
    }
}

pub(super) async fn as_many_are_taken_as_there_are<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        trial.take(&key, Cost::ONE).await;
        trial.demand(&key, Demand::up_to(2, Cost::ONE)).await;
        trial.demand(&key, Demand::up_to(u64::MAX, trial.part(2))).await;
        trial.demand(&key, Demand::up_to(u64::MAX, Cost::ONE)).await;
        trial.demand(&key, Demand::up_to(u64::MAX, Cost::ONE)).await;
        trial.take(&key, Cost::ONE).await;
    }
    let new = Key::from("bob");
    trial.demand(&new, Demand::up_to(0, Cost::ONE)).await;
    trial.demand(&new, Demand::up_to(u64::MAX, Cost::ONE)).await;
}

pub(super) async fn what_is_left_is_lowered_and_never_raised<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    let each = trial.part(1);
    let most = (0..Cost::DIMENSIONS).map(|dimension| each.get(dimension)).max().unwrap_or(0);
    for key in [Key::from("alice"), Key::GLOBAL] {
        for policy in [0, 1, 7] {
            for left in [u64::MAX, most / 2, most / 3, most / 2, 1, 1] {
                trial.demand(&key, Demand::lower_to(policy, left)).await;
                trial.peek(&key, Cost::ZERO).await;
            }
            trial.take(&key, Cost::ONE).await;
            trial.demand(&key, Demand::lower_to(policy, 0)).await;
            trial.take(&key, Cost::ONE).await;
            trial.advance(trial.idle_after(&key) / 2);
            trial.demand(&key, Demand::lower_to(policy, most / 4)).await;
        }
    }
}

pub(super) async fn what_was_not_used_comes_back<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        for time in trial.times() {
            let charge = trial.take(&key, trial.part(1)).await.receipt();
            let later = trial.take(&key, Cost::ONE).await.receipt();
            trial.advance(time);
            for (charge, actual) in [(later, Cost::ZERO), (charge, Cost::ONE)] {
                let Some(charge) = charge else { continue };
                trial.settle(&key, charge, actual).await;
                trial.peek(&key, Cost::ONE).await;
            }
            trial.take(&key, trial.part(1)).await;
        }
    }
}

pub(super) async fn what_was_used_beyond_is_owed<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        let each = trial.part(2);
        let Some(charge) = trial.take(&key, each).await.receipt() else { return };
        trial.settle(&key, charge, each.times(6)).await;
        for time in trial.times() {
            trial.take(&key, Cost::ONE).await;
            trial.take(&key, Cost::ZERO).await;
            // Debt is less than anything left.
            trial.demand(&key, Demand::lower_to(0, 0)).await;
            trial.advance(time);
        }
        // An excess counts also where the charge itself has been forgotten.
        trial.advance(trial.idle_after(&key) + Duration::from_secs(3));
        trial.settle(&key, charge, each.times(6)).await;
        trial.take(&key, Cost::ONE).await;
    }
}

pub(super) async fn keys_have_nothing_in_common<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    let long = |last: u8| Key::new([[b'x'; 300].as_slice(), &[last]].concat());
    let join = |parts: [&str; 2]| Key::join(&parts.map(Key::from));
    // Pairs that a store might take for one another.
    let keys = [
        Key::GLOBAL,
        Key::anonymous(),
        Key::from(""),
        Key::from("1"),
        Key::from(1),
        Key::from("a"),
        Key::from("A"),
        Key::from("a "),
        Key::from("a\0"),
        Key::from("{a}"),
        Key::from("{a}b"),
        Key::from("a:b"),
        Key::from("a\r\nb"),
        Key::from("*"),
        Key::new([0xff]),
        Key::new([0xff, 0xfe]),
        Key::secret("sk-1"),
        Key::from("é"),
        Key::from("e\u{301}"),
        join(["a", "bc"]),
        join(["ab", "c"]),
        long(b'1'),
        long(b'2'),
    ];
    // Each comes when all before it have taken everything, and is as new.
    for key in &keys {
        trial.take(key, trial.part(1)).await;
        trial.take(key, Cost::ONE).await;
    }
    for key in &keys {
        trial.take(key, Cost::ONE).await;
    }
}

pub(super) async fn clones_have_everything_in_common<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    let clone = trial.backend.clone();
    for key in [Key::from("alice"), Key::GLOBAL] {
        for _ in 0..3 {
            trial.take(&key, Cost::ONE).await;
            trial.backend = clone.clone();
        }
    }
}

pub(super) async fn an_idle_key_is_a_new_one<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        for beyond in [Duration::ZERO, H::TICK, Duration::from_secs(2)] {
            trial.exhaust(&key).await;
            // Others keep the backend busy meanwhile: it must not forget this one for it.
            for time in trial.times() {
                trial.advance(time / 8);
                trial.take(&Key::from("bob"), Cost::ONE).await;
            }
            trial.peek(&key, trial.part(1)).await;
            trial.advance(trial.idle_after(&key).saturating_sub(H::TICK));
            trial.peek(&key, trial.part(1)).await;
            trial.advance(trial.idle_after(&key) + beyond);
            trial.peek(&key, trial.part(1)).await;
            trial.take(&key, trial.part(1)).await;
        }
    }
}

pub(super) async fn a_changed_limit_keeps_what_was_used<A: Algorithm, H: Harness<A>>(
    trial: Tried<'_, '_, A, H>,
    next: &A,
) {
    let first = trial.algorithm.clone();
    for key in [Key::from("alice"), Key::GLOBAL] {
        for time in trial.times() {
            for limit in [&first, next] {
                trial.algorithm = limit.clone();
                trial.take(&key, Cost::ONE).await;
                trial.take(&key, trial.part(3)).await;
                trial.peek(&key, Cost::ZERO).await;
                trial.advance(time);
            }
        }
        trial.algorithm = first.clone();
    }
}

pub(super) async fn a_decision_that_is_dropped_is_charged_once_at_most<
    A: Algorithm,
    H: Harness<A>,
>(
    trial: Tried<'_, '_, A, H>,
    _: &A,
) {
    let key = Key::from("alice");
    let standing = Demand::peek(Cost::ZERO);
    let most = trial.expect(&key, standing).snapshot().remaining;

    // One is never polled, the other once.
    let demand = Demand::exactly(Cost::ONE);
    drop(trial.backend.decide(&trial.algorithm, &key, &demand));
    {
        let mut decision = pin!(trial.backend.decide(&trial.algorithm, &key, &demand));
        std::future::poll_fn(|context| {
            let _ = decision.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }

    for _ in 0..2 {
        let _ = trial.expect(&key, demand);
    }
    let least = trial.expect(&key, standing).snapshot().remaining;
    match trial.backend.decide(&trial.algorithm, &key, &standing).await {
        Ok(answer) => {
            let left = answer.snapshot().remaining;
            trial.check((least..=most).contains(&left), || {
                format!("two decisions were dropped: {left} are left, not {least} to {most}")
            });
        }
        Err(error) => trial.fail(&format!("the backend failed: {error} ({error:?})")),
    }
}
