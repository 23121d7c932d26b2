//! Threads that wait for a token, go away and learn while time passes, in every order that a
//! scheduler finds.
//!
//! A token comes in two seconds, and patience ends after an hour: who is not sent in a few minutes
//! was not woken. Run with `RUSTFLAGS="--cfg shuttle" cargo test --lib`.

use shuttle::{future::block_on, rand::Rng, thread};

use super::{timers::advance, *};
use crate::sync::{AtomicU64, Ordering};

/// The least rate, and when requests went at it.
#[derive(Clone)]
struct Model {
    pace: Arc<Pace>,
    went: Arc<Mutex<Vec<Timestamp>>>,
    /// How many threads are on their way.
    busy: Arc<AtomicU64>,
}

type Task = Box<dyn FnOnce(&Model) + Send>;

impl Model {
    /// A rate that has just fallen, so there is no token left.
    fn new() -> Self {
        let pace = Arc::new(Pace::new());
        let Entry::Go(sent) = pace.enter(PATIENT) else { panic!("nothing is held back yet") };
        // So late an answer is measured as a rate below the least one.
        advance(HOUR);
        let rate = pace.settle(sent, Outcome::Throttled(None));
        assert_eq!(rate, Some(AdaptiveBucket::MIN_RATE));
        Self { pace, went: Arc::new(Mutex::new(Vec::new())), busy: Arc::new(AtomicU64::new(0)) }
    }

    /// Comes to the line. Nobody finds a token at once here, unless time has passed.
    fn enter(&self, patience: Patience) -> Option<Waiter> {
        match self.pace.enter(patience) {
            Entry::Go(sent) => {
                self.note(sent);
                None
            }
            Entry::Wait(waiter) => Some(waiter),
            Entry::Refuse(throttled) => {
                assert!(patience.max_wait < HOUR, "it was refused: {throttled}");
                None
            }
        }
    }

    /// Notes one that went. Its answer comes later than all of them go.
    fn note(&self, sent: Sent) {
        self.went.lock().push(sent.at);
    }

    /// Waits for its turn.
    fn pass(&self) {
        if let Some(waiter) = self.enter(PATIENT) {
            self.note(block_on(waiter).expect("its turn comes"));
        }
    }

    /// Waits for its turn, and learns from the answer.
    fn learn(&self, outcome: Outcome) {
        if let Some(waiter) = self.enter(PATIENT) {
            let sent = block_on(waiter).expect("its turn comes");
            self.pace.settle(sent, outcome).expect("there is a rate");
        }
    }

    /// Waits for its turn, but for no longer than two tokens take.
    fn pass_or_not(&self) {
        let impatient = Patience { max_wait: Duration::from_secs(4), ..PATIENT };
        if let Some(waiter) = self.enter(impatient)
            && let Ok(sent) = block_on(waiter)
        {
            self.note(sent);
        }
    }

    /// Stands in line for a while.
    fn leave(&self) {
        if let Some(waiter) = self.enter(PATIENT) {
            self.look_and_go(waiter);
        }
    }

    /// Looks for its turn a few times, and goes away wherever it stands then: it may have been
    /// woken.
    fn look_and_go(&self, mut waiter: Waiter) {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..shuttle::rand::thread_rng().gen_range(0..4) {
            if let Poll::Ready(sent) = Pin::new(&mut waiter).poll(&mut context) {
                self.note(sent.expect("its turn comes"));
                return;
            }
            thread::yield_now();
        }
    }

    /// All of them at a time, while time passes; then nobody stands in line.
    fn run(&self, tasks: Vec<Task>) {
        self.busy.store(tasks.len() as u64, Ordering::SeqCst);
        let began = self.pace.now();
        let threads: Vec<_> = tasks
            .into_iter()
            .map(|task| {
                let model = self.clone();
                thread::spawn(move || {
                    task(&model);
                    model.busy.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        while self.busy.load(Ordering::SeqCst) > 0 {
            let passed = self.pace.now().saturating_since(began);
            assert!(passed < FEW_MINUTES, "somebody was not woken");
            advance(STEP);
            thread::yield_now();
        }
        for thread in threads {
            thread.join().expect("it comes to its end");
        }
        assert_eq!(self.pace.waiting(), 0, "a place is left");
    }

    /// Each that went had a token of its own.
    fn keeps_to_the_rate(&self) {
        let mut went = self.went.lock();
        went.sort_unstable();
        for pair in went.windows(2) {
            assert!(pair[1].saturating_since(pair[0]) >= TOKEN, "two had one token: {went:?}");
        }
    }
}

fn in_every_order(check: impl Fn() + Send + Sync + 'static) {
    let check = Arc::new(check);
    let random = Arc::clone(&check);
    shuttle::check_random(move || random(), 500);
    shuttle::check_pct(move || check(), 500, 3);
}

#[test]
fn nobody_is_forgotten_and_no_token_is_used_twice_whoever_goes_away() {
    in_every_order(|| {
        let model = Model::new();
        model.run(vec![
            Box::new(Model::pass),
            Box::new(Model::leave),
            Box::new(Model::pass_or_not),
            Box::new(Model::pass),
        ]);
        model.keeps_to_the_rate();
    });
}

/// An answer that changes the rate wakes who waits first, who may be about to go away.
#[test]
fn nobody_is_forgotten_when_answers_come_meanwhile() {
    in_every_order(|| {
        Model::new().run(vec![
            Box::new(|model| model.learn(Outcome::Accepted)),
            Box::new(|model| {
                model.leave();
                model.leave();
            }),
            Box::new(|model| model.learn(Outcome::Throttled(Some(TOKEN)))),
        ]);
    });
}

/// Three come one after the other; the second goes away at some time. A fourth comes while they
/// wait, or when they have gone.
#[test]
fn those_who_wait_are_sent_in_the_order_of_their_coming() {
    in_every_order(|| {
        let model = Model::new();
        let sent = Arc::new(Mutex::new([None; 3]));
        let note = |place: usize| {
            let sent = Arc::clone(&sent);
            move |model: &Model, went: Sent| {
                sent.lock()[place] = Some(went.at);
                model.note(went);
            }
        };
        let wait = |waiter: Waiter, place: usize| -> Task {
            let note = note(place);
            Box::new(move |model| note(model, block_on(waiter).expect("its turn comes")))
        };
        let [first, second, third] =
            [(); 3].map(|()| model.enter(PATIENT).expect("there is no token yet"));
        let last = note(2);
        model.run(vec![
            Box::new(move |model| {
                // There is a token, for who waits first.
                advance(TOKEN);
                match model.pace.enter(PATIENT) {
                    Entry::Go(sent) => last(model, sent),
                    Entry::Wait(waiter) => last(model, block_on(waiter).expect("its turn comes")),
                    Entry::Refuse(throttled) => panic!("it was refused: {throttled}"),
                }
            }),
            wait(third, 1),
            Box::new(move |model| model.look_and_go(second)),
            wait(first, 0),
        ]);
        let sent = sent.lock().map(|at| at.expect("it was sent"));
        assert!(sent.is_sorted(), "{sent:?} is not the order of their coming");
        model.keeps_to_the_rate();
    });
}

const HOUR: Duration = Duration::from_secs(3_600);
const FEW_MINUTES: Duration = Duration::from_secs(300);
/// In which a token comes at the least rate.
const TOKEN: Duration = Duration::from_secs(2);
/// By which time passes.
const STEP: Duration = Duration::from_millis(500);
const PATIENT: Patience = Patience { max_wait: HOUR, max_waiting: usize::MAX };
