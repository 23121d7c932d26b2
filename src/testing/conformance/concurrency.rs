use std::{collections::HashMap, sync::Barrier, thread};

use futures::future::join_all;

use super::{
    Harness,
    trial::{Trial, rounded},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::{Decision, Demand},
    key::Key,
};

/// How many ask at one time.
const ASKING: usize = 64;
/// How often each of them does.
const TIMES: usize = 4;

pub(super) async fn demands_on_one_key_at_one_time_are_in_some_order<
    A: Algorithm,
    H: Harness<A>,
>(
    trial: &mut Trial<'_, A, H>,
    _: &A,
) {
    for key in [Key::from("alice"), Key::GLOBAL] {
        at_one_time(trial, &[key]).await;
    }
}

pub(super) async fn demands_on_many_keys_at_one_time_do_not_meet<A: Algorithm, H: Harness<A>>(
    trial: &mut Trial<'_, A, H>,
    _: &A,
) {
    let keys: Vec<Key> = (0..8).map(Key::from).collect();
    at_one_time(trial, &keys).await;
}

/// Many ask for the same at one time, every second of them for no more than a yes. In which order
/// they are answered is not known, but as each asks for the same, the answers of any order are the
/// same ones.
async fn at_one_time<A: Algorithm, H: Harness<A>>(trial: &mut Trial<'_, A, H>, keys: &[Key]) {
    let demand = Demand::exactly(trial.part((ASKING * TIMES / keys.len() / 2) as u64));
    let key_of = |asking: usize| &keys[asking % keys.len()];

    // They ask on threads of their own. Those who have to wait do it together on this task.
    let start = Barrier::new(ASKING);
    let (backend, algorithm) = (&trial.backend, &trial.algorithm);
    let ask = |asking| {
        start.wait();
        let key = key_of(asking);
        let ask = |time| match time % 2 {
            0 => (key, Err(backend.decide(algorithm, key, &demand))),
            _ => (key, backend.admit(algorithm, key, &demand)),
        };
        (0..TIMES).map(ask).collect::<Vec<_>>()
    };
    let asked: Vec<_> = thread::scope(|threads| {
        let asking: Vec<_> = (0..ASKING).map(|asking| threads.spawn(move || ask(asking))).collect();
        asking
            .into_iter()
            .flat_map(|asked| asked.join().expect("a backend does not panic"))
            .collect()
    });
    let answers = join_all(asked.into_iter().map(|(key, answer)| async move {
        match answer {
            Ok(()) => (key, None),
            Err(decision) => (key, Some(decision.await)),
        }
    }));

    let mut answered: HashMap<&Key, Answers> = HashMap::new();
    for (key, answer) in answers.await {
        let answers = answered.entry(key).or_default();
        match answer {
            None => answers.admitted += 1,
            Some(Ok(answer)) => answers.told.push(shown::<A, H>(answer)),
            Some(Err(error)) => trial.fail(&format!("the backend failed: {error} ({error:?})")),
        }
    }
    for key in keys {
        let Answers { told, admitted } = answered.remove(key).unwrap_or_default();
        let times = told.len() + admitted;
        let expected: Vec<String> =
            (0..times).map(|_| shown::<A, H>(trial.expect(key, demand))).collect();
        let mut others = expected.clone();
        let mut odd = None;
        for answer in &told {
            match others.iter().position(|other| other == answer) {
                Some(place) => drop(others.swap_remove(place)),
                None => odd = Some(answer),
            }
        }
        // Of the rest it was only told that they are admitted.
        let agrees = odd.is_none() && others.iter().all(|other| is_allow(other));
        trial.check(agrees, || {
            let count = |answers: &[String]| answers.iter().filter(|it| is_allow(it)).count();
            let (allowed, in_order) = (count(&told) + admitted, count(&expected));
            format!(
                "{times} demands for {:?} of {key:?} at one time: {allowed} were allowed, and one \
                 after another it would have been {in_order}; an answer that no order gives: {odd:?}",
                demand.each
            )
        });
    }
    // And what is left is what those who were allowed have left.
    for key in keys {
        trial.demand(key, demand).await;
    }
}

/// What those who asked for one key were told.
#[derive(Default)]
struct Answers {
    told: Vec<String>,
    /// Those who were told no more than that.
    admitted: usize,
}

fn is_allow(shown: &str) -> bool {
    shown.starts_with("Allow")
}

fn shown<A: Algorithm, H: Harness<A>>(answer: Decision) -> String {
    format!("{:?}", rounded::<A, H>(answer))
}
