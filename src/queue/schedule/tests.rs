//! Schedules against a naive model: a list that is searched each time.

use std::collections::HashSet;

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};

use super::*;
use crate::queue::order::Priority;

#[derive(Clone, Debug)]
enum Step {
    Push { came: u64, head_start: u64, flow: u64, size: u64, weight: u32 },
    Serve,
    Remove(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (0..50_u64, 0..20_u64, 0..4_u64, 0..5_u64, 1..4_u32).prop_map(
        |(came, head_start, flow, size, weight)| Step::Push {
            came,
            head_start,
            flow,
            size,
            weight,
        },
    );
    let remove = any::<prop::sample::Index>().prop_map(Step::Remove);
    prop::collection::vec(prop_oneof![4 => push, 2 => Just(Step::Serve), 1 => remove], 0..200)
}

/// One in the model's list.
#[derive(Clone, Debug)]
struct Listed {
    came: u64,
    turn: u64,
    head_start: u64,
    flow: u64,
    size: u64,
}

impl Listed {
    fn rank(&self, order: Order) -> Rank {
        let (came, ahead) = (nanos(self.came), Priority::ahead_by(nanos(self.head_start)));
        order.rank(came, ahead, self.turn)
    }

    /// Where it stands, the least first, said in another way than by ranks.
    fn place(&self, order: Order) -> (i64, i64) {
        let (came, head_start) = (self.came as i64, self.head_start as i64);
        match order {
            Order::NewestFirst => (-(came + head_start), -(self.turn as i64)),
            _ => (came - head_start, self.turn as i64),
        }
    }
}

const fn nanos(nanos: u64) -> std::time::Duration {
    std::time::Duration::from_nanos(nanos)
}

/// Runs the steps. `check` sees the schedule and the list before each is served.
fn run(
    order: Order,
    steps: Vec<Step>,
    mut check: impl FnMut(&Schedule<u64>, &[Listed]) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut schedule = Schedule::new(order);
    let mut list: Vec<Listed> = Vec::new();
    for (turn, step) in (0..).zip(steps) {
        match step {
            Step::Push { came, head_start, flow, size, weight } => {
                let listed = Listed { came, turn, head_start, flow, size };
                let weight = NonZeroU32::new(weight).expect("not zero");
                let entry = Entry { size, weight, value: turn };
                schedule.push(listed.rank(order), &Key::from(flow), entry);
                list.push(listed);
            }
            Step::Remove(index) if !list.is_empty() => {
                let gone = list.swap_remove(index.index(list.len()));
                let removed = schedule.remove(gone.rank(order), &Key::from(gone.flow));
                prop_assert_eq!(removed.map(|entry| entry.value), Some(gone.turn));
            }
            Step::Serve if !list.is_empty() => {
                check(&schedule, &list)?;
                let (rank, flow, entry) = schedule.front().expect("somebody waits");
                let (flow, value) = (flow.clone(), entry.value);
                prop_assert_eq!(schedule.serve(rank, &flow).map(|entry| entry.value), Some(value));
                list.retain(|listed| listed.turn != value);
            }
            _ => {}
        }
        prop_assert_eq!(schedule.len(), list.len());
        let units: u64 = list.iter().map(|listed| listed.size).sum();
        prop_assert_eq!(schedule.all().units, u128::from(units));
        prop_assert_eq!(schedule.is_empty(), list.is_empty());
    }
    Ok(())
}

/// The same cases each time, and no file of old failures: they become tests of their own.
fn cases() -> Config {
    Config { rng_seed: RngSeed::Fixed(0x71AE), failure_persistence: None, ..Config::default() }
}

/// Alone, and as one of several lines.
#[test]
fn an_endless_row_of_new_flows_keeps_nobody_from_a_second_turn() {
    for shares in [None, Some(Arc::<Shares>::default())] {
        let mut schedule = Schedule::sharing(Order::Fair, shares);
        let push = |schedule: &mut Schedule<u64>, turn, flow: &str| {
            let rank = Order::Fair.rank(nanos(turn), Priority::LOW, turn);
            let entry = Entry { size: 5, weight: NonZeroU32::MIN, value: turn };
            schedule.push(rank, &Key::from(flow), entry);
        };
        for turn in 0..3 {
            push(&mut schedule, turn, "old");
        }
        let served = (3..1_000).find(|&turn| {
            // One is always there before the last has gone.
            push(&mut schedule, 2 * turn, &format!("new {turn}"));
            let (rank, flow, _) = schedule.front().expect("somebody waits");
            let flow = flow.clone();
            schedule.serve(rank, &flow).is_some_and(|entry| entry.value == 2)
        });
        assert!(served.is_some_and(|turn| turn < 30), "{served:?}");
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_lane_is_its_list_sorted(steps in steps(), newest in any::<bool>()) {
        let order = if newest { Order::NewestFirst } else { Order::Fifo };
        run(order, steps, |schedule, list| {
            let mut sorted = list.to_vec();
            sorted.sort_by_key(|listed| listed.place(order));
            let expected: Vec<u64> = sorted.iter().map(|listed| listed.turn).collect();
            let told: Vec<u64> = schedule.in_order().map(|(_, entry)| entry.value).collect();
            prop_assert_eq!(&told, &expected);
            prop_assert_eq!(schedule.last(), sorted.last().map(|listed| listed.rank(order)));
            Ok(())
        })?;
    }

    #[test]
    fn inside_a_flow_ranks_decide(steps in steps()) {
        run(Order::Fair, steps, |schedule, list| {
            let last = schedule.in_order().last().map(|(rank, _)| rank);
            let flows: HashSet<u64> = list.iter().map(|listed| listed.flow).collect();
            prop_assert_eq!(schedule.last(), last.filter(|_| flows.len() == 1));
            let told: Vec<u64> = schedule.in_order().map(|(_, entry)| entry.value).collect();
            for flow in 0..4 {
                let mut own: Vec<&Listed> = list.iter().filter(|one| one.flow == flow).collect();
                own.sort_by_key(|listed| listed.place(Order::Fair));
                let expected: Vec<u64> = own.iter().map(|listed| listed.turn).collect();
                let told: Vec<u64> =
                    told.iter().copied().filter(|turn| expected.contains(turn)).collect();
                prop_assert_eq!(told, expected);
            }
            Ok(())
        })?;
    }

    /// What is told of the order is what happens if nobody comes or goes.
    #[test]
    fn flows_are_served_as_told(steps in steps()) {
        let mut schedule = Schedule::new(Order::Fair);
        for (turn, step) in (0..).zip(steps) {
            if let Step::Push { came, head_start, flow, size, weight } = step {
                let listed = Listed { came, turn, head_start, flow, size };
                let weight = NonZeroU32::new(weight).expect("not zero");
                let entry = Entry { size, weight, value: turn };
                schedule.push(listed.rank(Order::Fair), &Key::from(flow), entry);
            }
        }
        let told: Vec<u64> = schedule.in_order().map(|(_, entry)| entry.value).collect();
        let mut served = Vec::new();
        while let Some((rank, flow, _)) = schedule.front() {
            let flow = flow.clone();
            served.extend(schedule.serve(rank, &flow).map(|entry| entry.value));
        }
        prop_assert_eq!(told, served);
    }

    /// Of two flows that always have somebody waiting, neither gets more than its share and one of
    /// its largest turns: the bound of start-time fair queueing (theorem 1 of the paper).
    #[test]
    fn flows_that_wait_all_the_time_get_their_shares(
        sizes in prop::collection::vec((1..9_u64, 1..9_u64), 40..80),
        weights in (1..5_u32, 1..5_u32),
    ) {
        let mut schedule = Schedule::new(Order::Fair);
        let mut turn = 0;
        for (one, other) in &sizes {
            for (flow, size, weight) in [(0, *one, weights.0), (1, *other, weights.1)] {
                let rank = Order::Fair.rank(nanos(0), Priority::LOW, turn);
                let weight = NonZeroU32::new(weight).expect("not zero");
                schedule.push(rank, &Key::from(flow), Entry { size, weight, value: flow });
                turn += 1;
            }
        }
        let (mut got, mut left) = ([0.0, 0.0], [sizes.len(), sizes.len()]);
        while left.iter().all(|&left| left > 0) {
            let (rank, flow, _) = schedule.front().expect("somebody waits");
            let flow = flow.clone();
            let entry = schedule.serve(rank, &flow).expect("the front");
            let at = entry.value as usize;
            got[at] += entry.size as f64 / f64::from(entry.weight.get());
            left[at] -= 1;
            let largest = 8.0 / f64::from(weights.0) + 8.0 / f64::from(weights.1);
            prop_assert!((got[0] - got[1]).abs() <= largest + 1e-6, "{:?}", got);
        }
    }
}
