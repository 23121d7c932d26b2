//! Backends with one fault each.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, DemandMode, Key, MaybeReady,
    algorithm::Algorithm,
    backend::Backend,
    time::{Clock, ManualClock},
};

use super::{
    Make,
    map::{Later, Map},
};

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send>>;

/// A backend with a fault: how it decides, how it settles, and how it is cloned.
pub(crate) struct Faulty<A: Algorithm> {
    map: Map<A>,
    fault: Fault,
    /// The limit that came last.
    last: Arc<Mutex<Option<A>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    AdmitsForNothing,
    AdmitsLate,
    AllOrNothing,
    BeginsAnew,
    ChargesOnRefusal,
    ChargesTwice,
    ClonesAreNew,
    CutsKeys,
    ForgetsEarly,
    ForgivesDebt,
    KeepsTheRest,
    ReadsThenWrites,
    SharesKeys,
    TakesAtAPeek,
    WaitsBetween,
}

macro_rules! faults {
    ($($fault:ident)+) => {$(
        pub(crate) struct $fault;

        impl<A: Algorithm> Make<A> for $fault {
            type Backend = Faulty<A>;

            fn make(clock: ManualClock) -> Faulty<A> {
                Faulty { map: Map::new(clock), fault: Fault::$fault, last: Arc::default() }
            }
        }
    )+};
}

faults! {
    AdmitsForNothing AdmitsLate AllOrNothing BeginsAnew ChargesOnRefusal ChargesTwice ClonesAreNew CutsKeys ForgetsEarly
    ForgivesDebt KeepsTheRest ReadsThenWrites SharesKeys TakesAtAPeek WaitsBetween
}

impl<A: Algorithm> Clone for Faulty<A> {
    fn clone(&self) -> Self {
        let map = match self.fault {
            Fault::ClonesAreNew => Map::new(self.map.clock().clone()),
            _ => self.map.clone(),
        };
        Self { map, fault: self.fault, last: Arc::clone(&self.last) }
    }
}

impl<A: Algorithm> Backend<A> for Faulty<A> {
    type Decide = Boxed<Decision>;
    type Settle = Boxed<()>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Boxed<Decision>> {
        let map = &self.map;
        let mut demand = *demand;
        let mut key = key.clone();
        match self.fault {
            Fault::SharesKeys if !key.is_global() => key = Key::from("all"),
            Fault::CutsKeys if key.as_bytes().len() > 64 => key = Key::new(&key.as_bytes()[..64]),
            Fault::TakesAtAPeek if demand.mode == DemandMode::Peek => {
                demand.mode = DemandMode::Take;
            }
            Fault::AllOrNothing if demand.mode == DemandMode::TakeUpTo => {
                demand.mode = DemandMode::Take;
            }
            Fault::ForgetsEarly => {
                let now = map.clock().now();
                let soon = now.saturating_add(Duration::from_nanos(1));
                let idle = map.with_state(algorithm, &key, |state, _| algorithm.idle_at(state));
                if idle > now && idle <= soon {
                    map.forget(&key);
                }
            }
            Fault::BeginsAnew => {
                let before = self.last.lock().unwrap().replace(algorithm.clone());
                if before.is_some_and(|before| before != *algorithm) {
                    map.forget(&key);
                }
            }
            Fault::ChargesTwice if demand.mode == DemandMode::Take => {
                let _ = map.answer(algorithm, &key, &demand);
            }
            Fault::ReadsThenWrites => {
                let state = map.with_state(algorithm, &key, |state, _| state.clone());
                std::thread::yield_now();
                let mut after = state;
                return MaybeReady::ready(Ok(map.with_state(algorithm, &key, |state, now| {
                    let decision = algorithm.answer(&mut after, now, &demand);
                    *state = after;
                    decision
                })));
            }
            Fault::WaitsBetween => {
                let (map, algorithm) = (map.clone(), algorithm.clone());
                return MaybeReady::pending(Box::pin(async move {
                    let mut after = map.with_state(&algorithm, &key, |state, _| state.clone());
                    Later::new(|| ()).await;
                    Ok(map.with_state(&algorithm, &key, |state, now| {
                        let decision = algorithm.answer(&mut after, now, &demand);
                        *state = after;
                        decision
                    }))
                }));
            }
            _ => {}
        }
        let decision = map.answer(algorithm, &key, &demand);
        if self.fault == Fault::ChargesOnRefusal
            && !decision.is_allowed()
            && demand.mode != DemandMode::Peek
        {
            map.with_state(algorithm, &key, |state, now| algorithm.take(state, now, Cost::ONE));
        }
        MaybeReady::ready(Ok(decision))
    }

    fn admit(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<(), MaybeReady<Boxed<Decision>>> {
        let looks_first = matches!(self.fault, Fault::AdmitsForNothing | Fault::AdmitsLate);
        if looks_first && demand.mode == DemandMode::Take {
            let peek = Demand::peek(demand.each);
            let before = self.map.answer(algorithm, key, &peek);
            std::thread::yield_now();
            if before.charge().is_some_and(|charge| charge.delay.is_zero()) {
                if self.fault == Fault::AdmitsLate {
                    let take = |state: &mut A::State, now| algorithm.take(state, now, demand.each);
                    self.map.with_state(algorithm, key, take);
                }
                return Ok(());
            }
        }
        Err(self.decide(algorithm, key, demand))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Boxed<()>> {
        let actual = match self.fault {
            Fault::ForgivesDebt => {
                let excess = actual.saturating_sub(charge.cost);
                actual.saturating_sub(excess)
            }
            Fault::KeepsTheRest if actual.saturating_sub(charge.cost).is_zero() => charge.cost,
            _ => actual,
        };
        self.map.correct(algorithm, key, charge, actual);
        MaybeReady::ready(Ok(()))
    }
}
