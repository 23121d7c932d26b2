use std::task::Poll;

use tokio_test::task::{self, Spawn};
use tower_quota::{
    BusyScope, Key,
    concurrency::{Acquire, ConcurrencyBuilder, ConcurrencyLimiter, Slot},
};

use crate::random::Random;

const PER_KEY: u64 = 4;
const TOTAL: u64 = 7;
const KEYS: usize = 4;
const WAITING: usize = 3;

/// Lists, gone through from the beginning each time.
#[derive(Default)]
struct Model {
    /// Number, key, weight.
    held: Vec<(u64, u64, u64)>,
    waiting: Vec<(u64, u64, u64)>,
}

impl Model {
    fn held_by(&self, key: u64) -> u64 {
        self.held.iter().filter(|(_, other, _)| *other == key).map(|(.., weight)| weight).sum()
    }

    fn total(&self) -> u64 {
        self.held.iter().map(|(.., weight)| weight).sum()
    }

    fn keys(&self) -> usize {
        let all = self.held.iter().chain(&self.waiting);
        all.map(|(_, key, _)| key).collect::<std::collections::BTreeSet<_>>().len()
    }

    fn knows(&self, key: u64) -> bool {
        self.held.iter().chain(&self.waiting).any(|(_, other, _)| *other == key)
    }

    /// The first that waits at its key and has room there, in the order of coming.
    fn next(&self) -> Option<usize> {
        (0..self.waiting.len()).find(|place| {
            let (_, key, weight) = self.waiting[*place];
            let is_first = self.waiting[..*place].iter().all(|(_, other, _)| *other != key);
            is_first && self.held_by(key) + weight <= PER_KEY
        })
    }

    fn has_room(&self, key: u64, weight: u64) -> bool {
        self.waiting.iter().all(|(_, other, _)| *other != key)
            && self.held_by(key) + weight <= PER_KEY
            && self.next().is_none()
            && self.total() + weight <= TOTAL
    }

    fn serve(&mut self) {
        while let Some(place) = self.next() {
            if self.total() + self.waiting[place].2 > TOTAL {
                return;
            }
            let served = self.waiting.remove(place);
            self.held.push(served);
        }
    }
}

enum Ours {
    Slot(Slot),
    Waits(Spawn<Acquire>),
}

#[test]
fn slots_go_to_whom_the_model_gives_them() {
    for seed in 0..60 {
        let limiter =
            ConcurrencyBuilder::new(PER_KEY).max_total(TOTAL).max_keys(KEYS).max_waiting(WAITING);
        let limiter = limiter.build();
        let (mut model, mut random) = (Model::default(), Random(seed));
        let mut ours: Vec<(u64, Ours)> = Vec::new();
        for number in 0..2_000 {
            let (key, weight) = (random.below(6), 1 + random.below(5));
            let name = Key::from(key);
            match random.below(5) {
                0 => {
                    let taken = limiter.try_acquire(&name, weight);
                    let is_new = !model.knows(key);
                    let has_room = model.has_room(key, weight) && !(is_new && model.keys() >= KEYS);
                    assert_eq!(taken.is_ok(), has_room, "seed {seed}, step {number}");
                    if let Ok(slot) = taken {
                        model.held.push((number, key, weight));
                        ours.push((number, Ours::Slot(slot)));
                    }
                }
                1 | 2 => {
                    let mut acquire = task::spawn(limiter.acquire(&name, weight));
                    let polled = acquire.poll();
                    let at_key = model.waiting.iter().filter(|(_, other, _)| *other == key).count();
                    let place = (number, key, weight);
                    let refusal = if weight > PER_KEY {
                        Some(BusyScope::Key)
                    } else if !model.knows(key) && model.keys() >= KEYS {
                        Some(BusyScope::Keys)
                    } else if model.has_room(key, weight) {
                        model.held.push(place);
                        None
                    } else if at_key >= WAITING {
                        Some(BusyScope::Queue)
                    } else {
                        model.waiting.push(place);
                        None
                    };
                    match polled {
                        Poll::Ready(Ok(slot)) => ours.push((number, Ours::Slot(slot))),
                        Poll::Ready(Err(busy)) => {
                            assert_eq!(Some(busy.scope), refusal, "seed {seed}, step {number}");
                        }
                        Poll::Pending => ours.push((number, Ours::Waits(acquire))),
                    }
                }
                _ if ours.is_empty() => {}
                _ => {
                    let (number, gone) = ours.swap_remove(random.below(ours.len() as u64) as usize);
                    drop(gone);
                    model.held.retain(|(other, ..)| *other != number);
                    model.waiting.retain(|(other, ..)| *other != number);
                    model.serve();
                }
            }
            compare(&limiter, &model, &mut ours);
        }
        drop(ours);
        let left = (limiter.total_in_use(), limiter.total_waiting(), limiter.keys());
        assert_eq!(left, (0, 0, 0), "seed {seed}");
    }
}

/// Who was woken has a slot, who was not has none, and they are those of the model.
fn compare(limiter: &ConcurrencyLimiter, model: &Model, ours: &mut [(u64, Ours)]) {
    for (number, state) in ours.iter_mut() {
        let is_held = model.held.iter().any(|(other, ..)| other == number);
        if let Ours::Waits(acquire) = state {
            assert_eq!(acquire.is_woken(), is_held, "a wake-up of {number}");
            // Some poll without having been woken: that changes nothing.
            match acquire.poll() {
                Poll::Ready(taken) => {
                    *state = Ours::Slot(taken.expect("who waits gets one"));
                }
                Poll::Pending => {}
            }
        }
        assert_eq!(
            matches!(state, Ours::Slot(slot) if slot.weight() > 0),
            is_held,
            "the slot of {number}"
        );
    }
    assert_eq!(limiter.total_in_use(), model.total());
    assert_eq!(limiter.total_waiting(), model.waiting.len());
    assert_eq!(limiter.keys(), model.keys());
    for key in 0..6 {
        assert_eq!(limiter.in_use(&Key::from(key)), model.held_by(key));
    }
}
