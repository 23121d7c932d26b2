use std::{panic::catch_unwind, time::Duration};

use futures::future::join_all;

use super::*;

/// Takes ten milliseconds for each batch, and notes them.
#[derive(Default)]
struct Slow {
    batches: Mutex<Vec<(u16, Vec<u32>)>>,
}

impl Carrier for Slow {
    type Job = u32;
    type Reply = u32;

    async fn carry(&self, lane: u16, steps: Vec<Step<u32>>) -> Vec<u32> {
        let jobs = wanted(&steps);
        self.batches.lock().expect("not poisoned").push((lane, jobs.clone()));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!jobs.contains(&13), "the carrier breaks down");
        jobs.into_iter().map(|job| job * 2).collect()
    }

    fn deadline(&self) -> Instant {
        Instant::now()
    }

    fn joins(&self, job: &u32, ahead: &u32) -> bool {
        job == ahead
    }
}

/// The jobs, each as often as it is wanted.
fn wanted(steps: &[Step<u32>]) -> Vec<u32> {
    steps.iter().flat_map(|step| std::iter::repeat_n(step.job, step.wanted_by())).collect()
}

fn coalescer(batch: usize, in_flight: usize) -> Coalescer<Slow> {
    Coalescer::new(Slow::default(), batch, in_flight)
}

fn batches(coalescer: &Coalescer<Slow>) -> Vec<(u16, Vec<u32>)> {
    coalescer.carrier().batches.lock().expect("not poisoned").clone()
}

/// A job that is on its way, or waits for that.
async fn sent(coalescer: &Coalescer<Slow>, lane: u16, job: u32) -> Receipt<Slow> {
    let mut receipt = coalescer.submit(lane, job);
    assert!(futures::poll!(&mut receipt).is_pending());
    turn().await;
    receipt
}

async fn turn() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_leaves_at_once_and_the_others_together() {
    let coalescer = coalescer(10, 1);
    let first = sent(&coalescer, 0, 1).await;
    let others: Vec<_> = (2..5).map(|job| coalescer.submit(0, job)).collect();
    assert_eq!(first.await, Some(2));
    assert_eq!(join_all(others).await, [Some(4), Some(6), Some(8)]);
    assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![2, 3, 4])]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_an_end_and_the_order_is_kept() {
    let coalescer = coalescer(2, 1);
    let all: Vec<_> = (0..5).map(|job| coalescer.submit(0, job)).collect();
    join_all(all).await;
    assert_eq!(batches(&coalescer), [(0, vec![0, 1]), (0, vec![2, 3]), (0, vec![4])]);
}

#[tokio::test(start_paused = true)]
async fn lanes_do_not_wait_for_each_other() {
    let coalescer = coalescer(10, 1);
    let all: Vec<_> = (0..4).map(|job| coalescer.submit(job as u16 % 2, job)).collect();
    let begun = Instant::now();
    join_all(all).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn several_batches_of_a_lane_can_be_under_way() {
    let coalescer = coalescer(10, 2);
    let first = sent(&coalescer, 0, 1).await;
    let second = sent(&coalescer, 0, 2).await;
    let third = coalescer.submit(0, 3);
    join_all([first, second, third]).await;
    assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![2]), (0, vec![3])]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_waits_for_any_more_does_not_leave() {
    let coalescer = coalescer(10, 1);
    let first = sent(&coalescer, 0, 1).await;
    let (second, third) = (sent(&coalescer, 0, 2).await, sent(&coalescer, 0, 3).await);
    drop(second);
    assert_eq!((first.await, third.await), (Some(2), Some(6)));
    assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![3])]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_one_who_came_first_does_not_strand_the_others() {
    let coalescer = coalescer(10, 1);
    let first = sent(&coalescer, 0, 1).await;
    let second = coalescer.submit(0, 2);
    drop(first);
    assert_eq!(second.await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_breaks_down_loses_its_batch_and_no_other() {
    let coalescer = coalescer(10, 1);
    let first = sent(&coalescer, 0, 13).await;
    let second = coalescer.submit(0, 2);
    assert_eq!((first.await, second.await), (None, Some(4)));
    turn().await;
    assert!(coalescer.shared.lanes().is_empty(), "an idle lane leaves nothing behind");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// The task of the lane is dropped while its thread panics, and is none that broke down: it once
/// took itself for one, and began anew in the runtime that was ending until the stack was used up.
#[test]
fn jobs_end_with_a_runtime_that_a_panic_ends() {
    let coalescer = coalescer(10, 1);
    let broken = catch_unwind(AssertUnwindSafe(|| {
        runtime().block_on(async {
            let _sent = sent(&coalescer, 0, 1).await;
            panic!("a caller breaks down");
        });
    }));
    assert!(broken.is_err());
    assert_eq!(runtime().block_on(async { coalescer.submit(0, 3).await }), Some(6));
}

#[test]
fn jobs_end_with_their_runtime() {
    let coalescer = coalescer(10, 1);
    let first = runtime();
    let lost =
        first.block_on(async { [sent(&coalescer, 0, 1).await, sent(&coalescer, 0, 2).await] });
    drop(first);
    for receipt in lost {
        assert_eq!(receipt.now_or_never(), Some(None));
    }
    assert_eq!(coalescer.submit(0, 3).now_or_never(), Some(None), "there is no runtime");
    assert_eq!(runtime().block_on(async { coalescer.submit(0, 3).await }), Some(6));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_are_one_step_are_carried_beyond_the_end_of_a_batch() {
    let coalescer = coalescer(2, 1);
    let all = [1, 5, 5, 5, 5, 6, 6, 5].map(|job| coalescer.submit(0, job));
    join_all(all).await;
    assert_eq!(batches(&coalescer), [(0, vec![1, 5, 5, 5, 5]), (0, vec![6, 6, 5])]);
}

#[tokio::test(start_paused = true)]
async fn where_each_travels_alone_none_joins_another() {
    let coalescer = coalescer(1, 1);
    join_all([5, 5, 5].map(|job| coalescer.submit(0, job))).await;
    assert_eq!(batches(&coalescer), [5, 5, 5].map(|job| (0, vec![job])));
}

#[tokio::test(start_paused = true)]
async fn whoever_polls_last_is_woken() {
    let coalescer = coalescer(10, 1);
    let mut moved = coalescer.submit(0, 1);
    assert!(moved.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(tokio::spawn(moved).await.expect("a reply"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_had_once() {
    let coalescer = coalescer(10, 1);
    let mut job = coalescer.submit(0, 1);
    assert_eq!((&mut job).await, Some(2));
    assert_eq!(job.await, None);
}

#[tokio::test(start_paused = true)]
async fn leaving_a_batch_that_is_under_way_takes_no_reply_from_others() {
    let coalescer = coalescer(10, 1);
    let first = sent(&coalescer, 0, 1).await;
    let [second, third, fourth] = [2, 3, 4].map(|job| sent(&coalescer, 0, job));
    let (second, third, fourth) = (second.await, third.await, fourth.await);
    // The third goes before the others leave, the second while they are under way.
    drop(third);
    assert_eq!(first.await, Some(2));
    turn().await;
    assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![2, 4])]);
    drop(second);
    assert_eq!(fourth.await, Some(8));
}

/// A runtime that nobody runs any more may have answered without leaving its seat.
#[test]
fn a_runtime_that_stands_still_holds_up_no_other() {
    let coalescer = coalescer(64, 4);
    let still = runtime();
    let all = (0..40).filter(|job| *job != 13).map(|job| coalescer.submit(0, job));
    still.block_on(join_all(all));
    assert_eq!(runtime().block_on(async { coalescer.submit(0, 3).await }), Some(6));
}

#[test]
fn a_runtime_that_stands_still_in_all_seats_holds_up_no_other() {
    let coalescer = coalescer(64, 4);
    let still = runtime();
    let receipts = still.block_on(async {
        let mut receipts = Vec::new();
        for job in 0..4 {
            receipts.push(sent(&coalescer, 0, job).await);
        }
        receipts
    });
    assert_eq!(runtime().block_on(in_time(coalescer.submit(0, 3))), Some(6));
    assert_eq!(still.block_on(join_all(receipts)), [0, 2, 4, 6].map(Some));
}

#[test]
fn a_runtime_takes_nothing_along_of_another() {
    let coalescer = coalescer(64, 1);
    let (still, other) = (runtime(), runtime());
    let first = still.block_on(sent(&coalescer, 0, 1));
    let second = other.block_on(sent(&coalescer, 0, 2));
    // It comes back, and goes on with what waits. Then nobody runs it any more.
    assert_eq!(still.block_on(async { (first.await, turn().await) }), (Some(2), ()));
    assert_eq!(other.block_on(in_time(second)), Some(4));
}

/// What a receipt says, if it does.
async fn in_time(receipt: Receipt<Slow>) -> Option<u32> {
    let waited = tokio::time::timeout(Duration::from_secs(30), receipt).await;
    waited.expect("nobody waits for ever")
}

/// Says which batches set out, and holds each back until that is told.
struct Held {
    out: tokio::sync::mpsc::UnboundedSender<(Vec<u32>, tokio::sync::oneshot::Sender<()>)>,
}

impl Carrier for Held {
    type Job = u32;
    type Reply = u32;

    async fn carry(&self, _: u16, steps: Vec<Step<u32>>) -> Vec<u32> {
        let jobs = wanted(&steps);
        let (go, gone) = tokio::sync::oneshot::channel();
        self.out.send((jobs.clone(), go)).expect("the test listens");
        gone.await.expect("the test lets it go");
        jobs
    }

    fn deadline(&self) -> Instant {
        Instant::now()
    }

    fn joins(&self, job: &u32, ahead: &u32) -> bool {
        job == ahead
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_batch_leaves_when_it_has_as_many_as_are_under_way() {
    let (out, mut batches) = tokio::sync::mpsc::unbounded_channel();
    let coalescer = Coalescer::new(Held { out }, 64, 2);
    let mut receipts = Vec::new();
    let mut send = |jobs: std::ops::Range<u32>| {
        for job in jobs {
            let mut receipt = coalescer.submit(0, job);
            assert!(receipt.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
            receipts.push(receipt);
        }
    };
    send(0..1);
    let (first, let_first_go) = batches.recv().await.expect("the first leaves at once");
    send(1..2);
    let (second, let_second_go) = batches.recv().await.expect("the second too");
    send(2..22);
    let_first_go.send(()).expect("it waits for that");
    let (third, let_third_go) = batches.recv().await.expect("both seats were taken");
    assert_eq!((first, second, third), (vec![0], vec![1], (2..22).collect()));

    let_second_go.send(()).expect("it waits for that");
    send(22..41);
    // A seat is free now, or soon: it is not for nineteen.
    send(41..42);
    let (fourth, let_fourth_go) = batches.recv().await.expect("they are as many as those");
    assert_eq!(fourth, (22..42).collect::<Vec<_>>());
    // Three are few, and go when both have come back.
    send(42..45);
    let_third_go.send(()).expect("it waits for that");
    let_fourth_go.send(()).expect("it waits for that");
    let (fifth, let_fifth_go) = batches.recv().await.expect("nobody is forgotten");
    assert_eq!(fifth, [42, 43, 44]);
    let_fifth_go.send(()).expect("it waits for that");
    let told: Vec<_> = join_all(receipts).await;
    assert_eq!(told, (0..45).map(Some).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_step_waits_for_what_is_under_way_until_many_want_it() {
    let (out, mut batches) = tokio::sync::mpsc::unbounded_channel();
    let coalescer = Coalescer::new(Held { out }, 64, 2);
    let mut receipts = Vec::new();
    let mut send = |job: u32, times: usize| {
        for _ in 0..times {
            let mut receipt = coalescer.submit(0, job);
            assert!(receipt.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
            receipts.push(receipt);
        }
    };
    send(1, 1);
    let (_, let_first_go) = batches.recv().await.expect("the first leaves at once");
    send(1, 1);
    let (_, let_second_go) = batches.recv().await.expect("the second too");
    send(2, 20);
    let_first_go.send(()).expect("it waits for that");
    let (third, let_third_go) = batches.recv().await.expect("few are under way");
    let_second_go.send(()).expect("it waits for that");
    // A seat is free now, or soon. As many as are under way are not enough.
    send(3, 31);
    send(3, 1);
    let (fourth, let_fourth_go) = batches.recv().await.expect("they are many");
    assert_eq!((third, fourth), (vec![2; 20], vec![3; 32]));
    let_third_go.send(()).expect("it waits for that");
    let_fourth_go.send(()).expect("it waits for that");
    let told = join_all(receipts).await;
    assert_eq!(told, [vec![Some(1); 2], vec![Some(2); 20], vec![Some(3); 32]].concat());
}

#[tokio::test(start_paused = true)]
async fn each_of_many_in_a_batch_has_its_own_reply() {
    let coalescer = coalescer(300, 1);
    let all: Vec<_> = (100..400).map(|job| coalescer.submit(0, job)).collect();
    let told = join_all(all).await;
    assert_eq!(told, (100..400).map(|job| Some(job * 2)).collect::<Vec<_>>());
    assert_eq!(batches(&coalescer).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_of_those_who_want_the_same_leaves_it_to_the_others() {
    let coalescer = coalescer(10, 1);
    let first = sent(&coalescer, 0, 1).await;
    let mut want_it = Vec::new();
    for _ in 0..4 {
        want_it.push(sent(&coalescer, 0, 5).await);
    }
    drop(want_it.remove(0));
    drop(want_it.remove(1));
    assert_eq!(first.await, Some(2));
    assert_eq!(join_all(want_it).await, [Some(10), Some(10)]);
    assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![5, 5])]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_nobody_wants_any_more_does_not_leave() {
    let coalescer = coalescer(10, 1);
    let first = sent(&coalescer, 0, 1).await;
    let wanted = [sent(&coalescer, 0, 5).await, sent(&coalescer, 0, 5).await];
    drop(wanted);
    assert_eq!(first.await, Some(2));
    turn().await;
    assert_eq!(batches(&coalescer), [(0, vec![1])]);
    assert!(coalescer.shared.lanes().is_empty(), "an idle lane leaves nothing behind");
}

#[tokio::test(start_paused = true)]
async fn those_for_whom_it_is_too_late_are_told_in_their_places() {
    let (now, timeout) = (Instant::now(), Duration::from_millis(100));
    let at = |millis| now + Duration::from_millis(millis);
    let mut steps = vec![Step::of('a', at(50)), Step::of('b', at(20)), Step::of('c', at(10))];
    steps[0].join(at(60));
    steps[0].join(at(40));
    steps[0].join(at(90));
    // A timeout's half is not enough, but for what is patient.
    let late = Late::part(&mut steps, timeout, |job| *job == 'c');
    let left: Vec<_> = steps.iter().map(|step| (step.job, step.wanted_by())).collect();
    assert_eq!(left, [('a', 2), ('c', 1)]);
    assert_eq!(late.told(|| 0), Some(vec![Some(0), None, Some(0), None, Some(0), None]));
    assert_eq!(late.within, timeout / 2);
    assert_eq!(late.among(vec![1, 2, 3], || 0), [0, 1, 0, 2, 0, 3]);

    let late = Late::part(&mut steps, timeout, |job| *job == 'c');
    assert_eq!(late.among(vec![1, 2, 3], || 0), [1, 2, 3]);
}
