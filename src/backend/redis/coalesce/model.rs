//! Threads whose jobs travel together, and some that go away, in every order that a scheduler
//! finds.
//!
//! No time passes: a job that is forgotten is a thread that waits for ever, which the scheduler
//! tells. Run with `RUSTFLAGS="--cfg shuttle" cargo test --lib`.

use std::collections::HashSet;

use shuttle::{future::block_on, rand::Rng, thread};

use super::*;

/// Numbers what it does.
#[derive(Default)]
struct Numbering {
    done: Mutex<u64>,
}

impl Carrier for Numbering {
    type Job = u32;
    type Reply = (u32, u64);

    async fn carry(&self, _: u16, steps: Vec<Step<u32>>) -> Vec<(u32, u64)> {
        for _ in 0..shuttle::rand::thread_rng().gen_range(0..3) {
            yield_now().await;
        }
        let mut done = self.done.lock().expect("not poisoned");
        let mut replies = Vec::new();
        for step in steps {
            for _ in 0..step.wanted_by() {
                *done += 1;
                replies.push((step.job, *done));
            }
        }
        replies
    }

    fn deadline(&self) -> Instant {
        Instant::now()
    }

    fn joins(&self, job: &u32, ahead: &u32) -> bool {
        job == ahead
    }
}

type Model = Coalescer<Numbering>;

/// Has jobs done one after the other, and gives the numbers under which they were.
fn stay(coalescer: &Model, jobs: &[u32]) -> Vec<u64> {
    let done = jobs.iter().map(|&job| {
        let (told, number) = block_on(coalescer.submit(0, job)).expect("no job is lost");
        assert_eq!(told, job, "it is told what became of another job");
        number
    });
    done.collect()
}

/// Looks a few times whether a job is done, and goes away.
fn leave(coalescer: &Model, job: u32) -> Vec<u64> {
    let mut receipt = coalescer.submit(0, job);
    for _ in 0..shuttle::rand::thread_rng().gen_range(1..4) {
        let context = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(told) = Pin::new(&mut receipt).poll(context) {
            let (told, number) = told.expect("no job is lost");
            assert_eq!(told, job, "it is told what became of another job");
            return vec![number];
        }
        thread::yield_now();
    }
    Vec::new()
}

fn in_every_order(check: impl Fn() + Send + Sync + 'static) {
    let check = Arc::new(check);
    let random = Arc::clone(&check);
    shuttle::check_random(move || random(), 1_000);
    shuttle::check_pct(move || check(), 1_000, 3);
}

/// All of them at a time: those who stay with these jobs, and those who leave with those.
fn run(batch: usize, in_flight: usize, stays: &[&'static [u32]], leaves: &[u32]) {
    let coalescer = Coalescer::new(Numbering::default(), batch, in_flight);
    let mut threads = Vec::new();
    for &jobs in stays {
        let coalescer = coalescer.clone();
        threads.push(thread::spawn(move || stay(&coalescer, jobs)));
    }
    for &job in leaves {
        let coalescer = coalescer.clone();
        threads.push(thread::spawn(move || leave(&coalescer, job)));
    }
    let numbers = threads.into_iter().map(|thread| thread.join().expect("it comes to its end"));
    let numbers: Vec<u64> = numbers.collect::<Vec<_>>().concat();
    let unlike: HashSet<u64> = numbers.iter().copied().collect();
    assert_eq!(unlike.len(), numbers.len(), "two are told of one job");
    let asked = stays.iter().map(|jobs| jobs.len()).sum::<usize>() + leaves.len();
    let done = *coalescer.carrier().done.lock().expect("not poisoned");
    assert!(done as usize <= asked, "{done} were done, and {asked} asked for");
    // Whoever was told may be faster than who told it.
    while !coalescer.shared.lanes().is_empty() {
        thread::yield_now();
    }
}

#[test]
fn jobs_of_one_step_are_all_told() {
    in_every_order(|| run(8, 2, &[&[1, 1], &[1, 1], &[1], &[1]], &[1]));
}

#[test]
fn jobs_of_several_steps_are_all_told() {
    in_every_order(|| run(8, 2, &[&[1, 2], &[2, 1], &[3], &[2]], &[2]));
}

#[test]
fn jobs_of_full_batches_are_all_told() {
    in_every_order(|| run(2, 3, &[&[1, 2], &[3, 3], &[4]], &[3, 5]));
}
