//! One question that is being asked, and everybody who waits for its answer.

mod reader;

use std::{
    collections::{HashMap, VecDeque, hash_map},
    error::Error,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

pub(super) use self::reader::{Outcome, Reader};
use super::{
    age::write_age,
    answer::{Answer, Head, Part},
    broken::BrokenAnswer,
    key::AnswerKey,
    status::strip,
};
use crate::time::timer_now;

/// The questions that are being asked.
#[derive(Default)]
pub(super) struct Flights {
    flights: Mutex<HashMap<AnswerKey, Arc<Flight>>>,
}

/// What a request is in a flight.
pub(super) enum Role {
    /// It has to ask.
    Leader(Leader, Reader),
    /// Somebody asks already.
    Follower(Reader),
}

impl Flights {
    /// Joins the flight under `key` if something has come of it `within` that time, or begins one.
    pub(super) fn join(self: &Arc<Self>, key: AnswerKey, bound: usize, within: Duration) -> Role {
        let flights = self.flights.lock();
        if let Some(reader) = flights.get(&key).and_then(|flight| flight.join(within)) {
            return Role::Follower(reader);
        }
        let (leader, reader) = self.begin_in(flights, key, bound);
        Role::Leader(leader, reader)
    }

    /// Begins a flight, whoever else may be asking.
    pub(super) fn begin(self: &Arc<Self>, key: AnswerKey, bound: usize) -> (Leader, Reader) {
        self.begin_in(self.flights.lock(), key, bound)
    }

    fn begin_in(
        self: &Arc<Self>,
        mut flights: MutexGuard<'_, HashMap<AnswerKey, Arc<Flight>>>,
        key: AnswerKey,
        bound: usize,
    ) -> (Leader, Reader) {
        let mut state = State::new(bound);
        let id = state.add_reader();
        let flight = Arc::new(Flight { state: Mutex::new(state) });
        let reader = Reader::new(&flight, id);
        let earlier = flights.insert(key, Arc::clone(&flight));
        drop(flights);
        // It may hold the last of its frames: not under the lock.
        drop(earlier);
        (Leader { flights: Arc::clone(self), key, flight }, reader)
    }
}

/// The one that asks: it tells the others what comes.
///
/// Dropped before the answer's head is there, it leaves its place to one of them; after that, it
/// tells them that the answer broke off.
pub(super) struct Leader {
    flights: Arc<Flights>,
    key: AnswerKey,
    flight: Arc<Flight>,
}

struct Flight {
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    head: Option<Arc<Head>>,
    /// The parts from the number `first` on. All from the first while `is_whole`.
    parts: VecDeque<Part>,
    first: u64,
    is_whole: bool,
    weight: usize,
    bound: usize,
    readers: HashMap<u64, Progress>,
    last_id: u64,
    /// The leader, where it waits for readers.
    leader: Option<Waker>,
    /// When it began, or when the last of it came.
    heard: Instant,
}

#[derive(Clone)]
enum Phase {
    Asking,
    Streaming,
    Ended,
    Broken(Arc<dyn Error + Send + Sync>),
    Failed,
    Private,
}

/// How far a reader is.
#[derive(Default)]
struct Progress {
    next: u64,
    bytes: u64,
    waker: Option<Waker>,
}

impl Flight {
    /// `None` if who comes now could not have the whole answer, or might wait for ever: nothing has
    /// come `within` that time.
    fn join(self: &Arc<Self>, within: Duration) -> Option<Reader> {
        let mut state = self.state.lock();
        let is_alive = timer_now().saturating_duration_since(state.heard) < within;
        let is_open = match state.phase {
            // One that nobody reads any more may be on its way out.
            Phase::Asking => is_alive && !state.readers.is_empty(),
            Phase::Streaming => is_alive && state.is_whole,
            Phase::Ended => state.is_whole,
            Phase::Broken(_) | Phase::Failed | Phase::Private => false,
        };
        is_open.then(|| Reader::new(self, state.add_reader()))
    }

    /// Changes the state, and wakes all readers.
    fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let wakers: Vec<_> =
            state.readers.values_mut().filter_map(|reader| reader.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl State {
    fn new(bound: usize) -> Self {
        Self {
            phase: Phase::Asking,
            head: None,
            parts: VecDeque::new(),
            first: 0,
            is_whole: true,
            weight: 0,
            bound,
            readers: HashMap::new(),
            last_id: 0,
            leader: None,
            heard: timer_now(),
        }
    }

    fn add_reader(&mut self) -> u64 {
        self.last_id += 1;
        self.readers.insert(self.last_id, Progress::default());
        self.last_id
    }

    /// Forgets parts while there are too many: those that one reader at least has read. So the
    /// fastest reader sets the pace, and none who stands still can hold it up.
    fn make_room(&mut self) {
        if self.weight > self.bound {
            self.is_whole = false;
        }
        if self.is_whole {
            return;
        }
        let fastest = self.readers.values().map(|reader| reader.next).max().unwrap_or(0);
        let slowest = self.readers.values().map(|reader| reader.next).min().unwrap_or(0);
        while self.first < slowest || (self.weight > self.bound && self.first < fastest) {
            let Some(part) = self.parts.pop_front() else { break };
            self.weight -= part.weight();
            self.first += 1;
        }
    }

    fn next_number(&self) -> u64 {
        self.first + self.parts.len() as u64
    }
}

impl Leader {
    /// The answer's head is there.
    pub(super) fn head(&self, head: Arc<Head>) {
        self.flight.tell(|state| {
            state.weight = head.weight();
            state.head = Some(head);
            state.phase = Phase::Streaming;
            state.heard = timer_now();
        });
    }

    /// A part of the answer is there, and whether it is the last. Tells whether the answer is held
    /// as a whole still.
    pub(super) fn part(&self, part: Part, is_last: bool) -> bool {
        self.flight.tell(|state| {
            state.weight += part.weight();
            state.parts.push_back(part);
            state.heard = timer_now();
            state.make_room();
            if is_last {
                state.phase = Phase::Ended;
            }
            state.is_whole
        })
    }

    /// The answer is over.
    pub(super) fn end(&self) {
        self.flight.tell(|state| state.phase = Phase::Ended);
    }

    /// The answer broke off.
    pub(super) fn break_off(&self, error: Arc<dyn Error + Send + Sync>) {
        self.flight.tell(|state| state.phase = Phase::Broken(error));
    }

    /// The answer is for the leader alone.
    pub(super) fn keep_private(&self) {
        self.flight.tell(|state| state.phase = Phase::Private);
    }

    /// The whole answer, unless it was too large. It was asked for `delay` ago, and says so.
    pub(super) fn answer(&self, fresh_for: Duration, delay: Duration) -> Option<Answer> {
        let state = self.flight.state.lock();
        let mut head = state.head.as_deref().filter(|_| state.is_whole)?.clone();
        let parts: Vec<_> = state.parts.iter().cloned().collect();
        drop(state);
        strip(&mut head.headers);
        if delay >= Duration::from_secs(1) {
            write_age(delay, &mut head.headers);
        }
        Some(Answer::new(head, parts.iter(), fresh_for))
    }

    /// Waits until there is room for another part.
    pub(super) async fn room(&self) {
        poll_fn(|context| {
            let mut state = self.flight.state.lock();
            state.make_room();
            if state.weight <= state.bound || state.parts.is_empty() {
                return Poll::Ready(());
            }
            wait(state, context, |state| &mut state.leader)
        })
        .await;
    }

    /// A watch on whether anybody reads still.
    pub(super) fn audience(&self) -> Audience {
        Audience(Arc::clone(&self.flight))
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut flights = self.flights.flights.lock();
        let own = match flights.entry(self.key) {
            hash_map::Entry::Occupied(entry) if Arc::ptr_eq(entry.get(), &self.flight) => {
                Some(entry.remove())
            }
            _ => None,
        };
        drop(flights);
        drop(own);
        self.flight.tell(|state| match state.phase {
            Phase::Asking => state.phase = Phase::Failed,
            Phase::Streaming => state.phase = Phase::Broken(Arc::new(BrokenAnswer::ABANDONED)),
            Phase::Ended | Phase::Broken(_) | Phase::Failed | Phase::Private => {}
        });
    }
}

/// Whether anybody reads a flight's answer.
pub(super) struct Audience(Arc<Flight>);

impl Audience {
    /// Is over when nobody waits for the head any more, or when nobody has read the body for
    /// `linger`: a client that has what it wanted may go before the end, and another may come.
    pub(super) async fn gone(self, linger: Duration) {
        loop {
            poll_fn(|context| self.poll_empty(context)).await;
            if self.close(false) {
                return;
            }
            tokio::time::sleep(linger).await;
            if self.close(true) {
                return;
            }
        }
    }

    fn poll_empty(&self, context: &Context<'_>) -> Poll<()> {
        let state = self.0.state.lock();
        if state.readers.is_empty() && matches!(state.phase, Phase::Asking | Phase::Streaming) {
            return Poll::Ready(());
        }
        wait(state, context, |state| &mut state.leader)
    }

    /// Lets nobody in any more, if nobody is there and nobody is likely to come.
    fn close(&self, has_lingered: bool) -> bool {
        let mut state = self.0.state.lock();
        if !state.readers.is_empty() {
            return false;
        }
        match state.phase {
            Phase::Asking => state.phase = Phase::Failed,
            Phase::Streaming if has_lingered || !state.is_whole => {
                state.phase = Phase::Broken(Arc::new(BrokenAnswer::ABANDONED));
            }
            _ => return false,
        }
        true
    }
}

/// Leaves a waker. The earlier one is dropped after the lock: it may be the end of a task that
/// reads here.
fn wait<T>(
    mut state: MutexGuard<'_, State>,
    context: &Context<'_>,
    place: impl FnOnce(&mut State) -> &mut Option<Waker>,
) -> Poll<T> {
    let earlier = place(&mut state).replace(context.waker().clone());
    drop(state);
    drop(earlier);
    Poll::Pending
}
