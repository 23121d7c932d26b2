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

/// Many ask for the same at one time. In which order they are answered is not known, but as each
/// asks for the same, the answers of any order are the same ones.
async fn at_one_time<A: Algorithm, H: Harness<A>>(trial: &mut Trial<'_, A, H>, keys: &[Key]) {
    let demand = Demand::exactly(trial.part((ASKING * TIMES / keys.len() / 2) as u64));
    let key_of = |asking: usize| &keys[asking % keys.len()];

    // They ask on threads of their own. Those who have to wait do it together on this task.
    let start = Barrier::new(ASKING);
    let (backend, algorithm) = (&trial.backend, &trial.algorithm);
    let ask = |asking| {
        start.wait();
        let ask = |_| (key_of(asking), backend.decide(algorithm, key_of(asking), &demand));
        (0..TIMES).map(ask).collect::<Vec<_>>()
    };
    let asked: Vec<_> = thread::scope(|threads| {
        let asking: Vec<_> = (0..ASKING).map(|asking| threads.spawn(move || ask(asking))).collect();
        asking
            .into_iter()
            .flat_map(|asked| asked.join().expect("a backend does not panic"))
            .collect()
    });
    let answers =
        join_all(asked.into_iter().map(|(key, decision)| async move { (key, decision.await) }));

    let mut answered: HashMap<&Key, Vec<String>> = HashMap::new();
    for (key, answer) in answers.await {
        match answer {
            Ok(answer) => answered.entry(key).or_default().push(shown::<A, H>(answer)),
            Err(error) => trial.fail(&format!("the backend failed: {error} ({error:?})")),
        }
    }
    for key in keys {
        let mut answers = answered.remove(key).unwrap_or_default();
        let times = answers.len();
        let mut expected: Vec<String> =
            (0..times).map(|_| shown::<A, H>(trial.expect(key, demand))).collect();
        answers.sort();
        expected.sort();
        trial.check(answers == expected, || {
            let count = |answers: &[String]| {
                answers.iter().filter(|answer| answer.starts_with("Allow")).count()
            };
            let (allowed, in_order) = (count(&answers), count(&expected));
            let odd = answers.iter().find(|answer| !expected.contains(answer));
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

fn shown<A: Algorithm, H: Harness<A>>(answer: Decision) -> String {
    format!("{:?}", rounded::<A, H>(answer))
}
