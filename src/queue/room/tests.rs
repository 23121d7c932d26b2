//! Lines that are full, against what was promised of them.

use std::time::Duration;

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};

use super::*;
use crate::queue::order::Priority;

/// A line of a bound for waiters and one for units, and nothing served from it.
struct Full {
    order: Order,
    schedule: Schedule<u64>,
    bounds: Bounds,
    turn: u64,
}

impl Full {
    fn new(waiters: usize, units: u64) -> Self {
        let bounds = Bounds { waiters, units, flow_waiters: usize::MAX, flow_units: u64::MAX };
        Self::of(Order::Fair, bounds)
    }

    fn of(order: Order, bounds: Bounds) -> Self {
        Self { order, schedule: Schedule::new(order), bounds, turn: 0 }
    }

    /// Lets one come; the flows of those who had to go for it.
    fn come(&mut self, flow: u64, weight: u32, size: u64) -> Result<Vec<Key>, Bound> {
        let (turn, key) = (self.turn, Key::from(flow));
        self.turn += 1;
        let rank = self.order.rank(Duration::ZERO, Priority::LOW, turn);
        let weight = NonZeroU32::new(weight).expect("not zero");
        let claim = Claim { rank, flow: &key, weight, size };
        let leavers = self.bounds.room_for(&self.schedule, self.order, claim, |_| false)?;
        for Leaver { rank, flow } in &leavers {
            self.schedule.remove(*rank, flow).expect("it waits");
        }
        self.schedule.push(rank, &key, Entry { size, weight, value: turn });
        Ok(leavers.into_iter().map(|leaver| leaver.flow).collect())
    }

    fn waiters_of(&self, flow: u64) -> usize {
        self.schedule.part_of(&Key::from(flow)).waiters
    }
}

#[test]
fn the_flow_with_most_gives_way_until_all_have_as_much() {
    let mut line = Full::new(6, u64::MAX);
    for _ in 0..6 {
        assert_eq!(line.come(1, 1, 1), Ok(vec![]));
    }
    assert_eq!(line.come(1, 1, 1), Err(Bound::Waiters));
    for _ in 0..3 {
        assert_eq!(line.come(2, 1, 1), Ok(vec![Key::from(1)]));
    }
    assert_eq!(line.come(2, 1, 1), Err(Bound::Waiters));
    // By weight: twice the share.
    let mut of_heavy = 0;
    while line.come(3, 2, 1).is_ok() {
        of_heavy += 1;
    }
    assert_eq!((of_heavy, line.waiters_of(1) + line.waiters_of(2)), (3, 3));
}

#[test]
fn what_gives_way_is_enough_or_nobody_goes() {
    let mut line = Full::new(usize::MAX, 10);
    for size in [1, 4, 1, 3] {
        assert_eq!(line.come(1, 1, size), Ok(vec![]));
    }
    // The last two make room for five; the whole flow would not for ten.
    assert_eq!(line.come(2, 1, 10), Err(Bound::Units));
    assert_eq!(line.schedule.all().units, 9);
    assert_eq!(line.come(2, 1, 4), Ok(vec![Key::from(1)]));
    assert_eq!(line.waiters_of(1), 3);
}

#[test]
fn a_flow_is_bounded_where_flows_are_told_apart_and_nowhere_else() {
    let bounds = Bounds { waiters: 4, units: 100, flow_waiters: 2, flow_units: 8 };
    for order in [Order::Fifo, Order::NewestFirst, Order::Fair] {
        let is_fair = order == Order::Fair;
        let mut line = Full::of(order, bounds);
        let large = line.come(1, 1, 9);
        assert_eq!(large.err(), is_fair.then_some(Bound::FlowUnits), "{order:?}");
        let many: Vec<_> = (0..3).map(|_| line.come(2, 1, 1).err()).collect();
        assert_eq!(many, [None, None, is_fair.then_some(Bound::FlowWaiters)], "{order:?}");
    }
}

/// The same cases each time, and no file of old failures: they become tests of their own.
fn cases() -> Config {
    Config { rng_seed: RngSeed::Fixed(0x71AE), failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(cases())]

    /// A line of equals is never longer than it may be, and refuses a flow only if it would get
    /// more than any other has.
    #[test]
    fn nobody_is_kept_out_by_those_who_have_more(
        waiters in 1..12_usize,
        steps in prop::collection::vec((0..6_u64, any::<bool>()), 1..200),
    ) {
        let mut line = Full::new(waiters, u64::MAX);
        for (flow, serves) in steps {
            if serves && let Some((rank, flow, _)) = line.schedule.front() {
                let flow = flow.clone();
                line.schedule.serve(rank, &flow);
            }
            let before: Vec<usize> = (0..6).map(|flow| line.waiters_of(flow)).collect();
            let own = before[flow as usize] + 1;
            let others = (0..6).filter(|&other| other != flow);
            let most = others.map(|other| before[other as usize]).max().expect("five others");
            match line.come(flow, 1, 1) {
                Ok(gone) => {
                    prop_assert!(line.schedule.len() <= waiters);
                    for gone in gone {
                        let of = (0..6).find(|of| Key::from(*of) == gone).expect("one of them");
                        prop_assert_eq!(before[of as usize], most);
                        prop_assert!(most > own);
                    }
                }
                Err(_) => {
                    prop_assert_eq!(line.schedule.len(), waiters);
                    prop_assert!(most <= own);
                }
            }
        }
    }
}
