mod attempt;
mod callback;

use std::{
    error::Error,
    fmt,
    future::{Future, pending},
    num::NonZeroUsize,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, Response};
use http_body::Body;
use tokio::{task::JoinSet, time::sleep};
use tower_service::Service;

pub use self::callback::CallbackOutcome;
use self::{attempt::Attempt, callback::Callback};
use super::{
    body::StoredBody,
    ends::Ends,
    error::StoreError,
    id::{Owner, RequestId},
    message::StoredResponse,
    settings::Settings,
    status::{Failure, State},
    store::{DeferredStore, Taken},
    verdict::Verdict,
};
use crate::observe::deferrals::{Deferrals, StoreStep};

type BoxError = Box<dyn Error + Send + Sync>;

/// Runs deferred requests, by calling a service with them.
///
/// Made by [`DeferredLayer::runner`](super::DeferredLayer::runner). It does nothing until
/// [`run`](Self::run) is polled: spawn it. Any number of runners, in this process or another, can
/// share a store, and none of them is needed for requests to be accepted.
///
/// A request that is taken is the runner's for a [lease](Self::lease), which it renews while the
/// service works. If its process dies, the lease ends, and another runs the request again. One that
/// was canceled meanwhile is noticed when the lease is renewed, and the service's future is
/// dropped.
///
/// The service is a clone for each request, and called when it is ready. It finds the request's id,
/// attempt and label in the [`Deferral`] extension, and the id as `Idempotency-Key`.
///
/// Two ways to stay inside a limit: let the service wait (`.wait(…)` on a layer): then as many as
/// run at a time wait in its line. Or let it refuse: then a request goes back and its owner's are
/// not looked at until the time that the refusal says, or for an [hour](Self::longest_hold).
#[must_use = "a runner does nothing until it runs"]
pub struct Runner<S, M> {
    service: S,
    store: M,
    rules: Rules,
    concurrency: NonZeroUsize,
    report_every: Duration,
}

/// How attempts are made and judged.
#[derive(Clone)]
struct Rules {
    lease: Duration,
    backoff: (Duration, Duration),
    longest_hold: Duration,
    max_result_bytes: usize,
    verdict: Arc<Judge>,
    on_end: Option<Arc<Callback>>,
    observer: Deferrals,
    ends: Ends,
}

type Judge = dyn Fn(Result<&StoredResponse, &(dyn Error + 'static)>) -> Verdict + Send + Sync;

/// What the service of a runner finds in the extensions of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Deferral {
    /// The request.
    pub id: RequestId,
    /// Whose it is.
    pub owner: Owner,
    /// Which attempt this is, from one on.
    pub attempt: u32,
    /// What the [terms](super::Terms::label) said.
    pub label: Arc<str>,
}

/// What a [callback](Runner::on_end) is told of a request that has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// Which request, of whom, in which attempt.
    pub deferral: Deferral,
    /// [`Done`](State::Done) or [`Failed`](State::Failed).
    pub state: State,
    /// Why it failed, if it has.
    pub failure: Option<Failure>,
    /// Its answer, or its last one.
    pub response: Option<StoredResponse>,
}

impl<S, M> Runner<S, M> {
    pub(super) fn new(service: S, store: M, settings: &Settings) -> Self {
        let rules = Rules {
            lease: Duration::from_secs(30),
            backoff: (Duration::from_secs(1), Duration::from_secs(300)),
            longest_hold: Duration::from_secs(3_600),
            max_result_bytes: settings.max_result_bytes,
            verdict: Arc::new(Verdict::of),
            on_end: None,
            observer: settings.observer.clone(),
            ends: settings.ends.clone(),
        };
        let concurrency = NonZeroUsize::new(16).expect("it is not zero");
        Self { service, store, rules, concurrency, report_every: Duration::from_secs(10) }
    }

    /// How many requests run at a time; 16 by default.
    pub fn concurrency(self, requests: NonZeroUsize) -> Self {
        Self { concurrency: requests, ..self }
    }

    /// For how long a request is the runner's; 30 seconds by default. It is renewed after each
    /// third of it, so it does not bound how long the service may take, but how long a request of a
    /// process that has died waits until it is run again.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.rules.lease = lease;
        self
    }

    /// How long to wait before another attempt where nobody says: `first`, twice that each time,
    /// and never more than `most`, with up to a quarter on top, so that not all come at once. A
    /// second and five minutes by default. A refusal, which is no attempt and holds back all that
    /// its owner has, is always `first`.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.rules.backoff = (first, most);
        self
    }

    /// For how long a refusal holds an owner back at most, whatever it says; an hour by default.
    /// Then one of its requests is tried again, which costs it no attempt.
    pub fn longest_hold(mut self, time: Duration) -> Self {
        self.rules.longest_hold = time;
        self
    }

    /// How often the runner tells the metrics what the store holds, beginning at once, and once
    /// more when it [ends](Self::run_until); every ten seconds by default. All runners of a store
    /// tell the same.
    pub fn report_every(self, time: Duration) -> Self {
        Self { report_every: time, ..self }
    }

    /// Judges attempts by `verdict`, in place of [`Verdict::of`]. It sees the whole answer.
    pub fn verdict(
        mut self,
        verdict: impl Fn(Result<&StoredResponse, &(dyn Error + 'static)>) -> Verdict
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.rules.verdict = Arc::new(verdict);
        self
    }

    /// Calls `callback` with each request that this runner has brought to its end: for a webhook,
    /// whose address may be the [label](super::Terms::label).
    ///
    /// It is called once the end is stored. Should the process die in between it is not called, so
    /// it is no more than a hint to look; and for one that expires or is canceled nobody calls. The
    /// request's place among those that run is free when the callback has ended. If it returns a
    /// `Result` an error is told to the metrics, and to nobody else.
    pub fn on_end<F>(mut self, callback: impl Fn(Ended) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output: CallbackOutcome> + Send + 'static,
    {
        self.rules.on_end = Some(Arc::new(move |ended| {
            let called = callback(ended);
            Box::pin(async { called.await.is_success() })
        }));
        self
    }
}

impl<S, M: DeferredStore> Runner<S, M> {
    /// Runs requests, for ever.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops what runs: the service may have done it, and does it again when the lease
    /// is over. [`run_until`](Self::run_until) ends without that.
    pub async fn run<ResBody>(self)
    where
        S: Service<Request<StoredBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        ResBody: Body<Data = Bytes> + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        self.run_until(pending()).await;
    }

    /// Runs requests until `end`, and then those to their end that run.
    ///
    /// # Cancel safety
    ///
    /// As that of [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime. A service that panics costs its request an attempt.
    pub async fn run_until<ResBody>(self, end: impl Future<Output = ()>)
    where
        S: Service<Request<StoredBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        ResBody: Body<Data = Bytes> + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        let (store, observer) = (self.store.clone(), self.rules.observer.clone());
        let every = self.report_every.max(TICK);
        let reports = async {
            loop {
                report(&store, &observer).await;
                sleep(every).await;
            }
        };
        let work = self.work(end);
        let _worked = select(pin!(work), pin!(reports)).await;
        report(&store, &observer).await;
    }

    async fn work<ResBody>(self, end: impl Future<Output = ()>)
    where
        S: Service<Request<StoredBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        ResBody: Body<Data = Bytes> + Send + 'static,
        ResBody::Error: Into<BoxError>,
    {
        let mut running = JoinSet::new();
        let mut end = pin!(end);
        let mut is_away = false;
        loop {
            while running.try_join_next().is_some() {}
            let free = self.concurrency.get() - running.len();
            // From before the look: what comes after it is not missed.
            let changed = self.store.changed();
            // It is not cut off by the end: what it takes is ours.
            let taken = match free {
                0 => Ok(Taken::default()),
                free => {
                    let taken = self.store.take(free, self.rules.lease).await;
                    if is_away != taken.is_err() {
                        is_away = !is_away;
                        self.rules.observer.store_switched(is_away);
                    }
                    taken
                }
            };
            let (count, next) = match taken {
                Ok(taken) => {
                    let count = taken.jobs.len();
                    for job in taken.jobs {
                        let (store, rules) = (self.store.clone(), self.rules.clone());
                        running.spawn(Attempt { store, rules, job }.run(self.service.clone()));
                    }
                    (count, taken.next)
                }
                // It may have taken some for us. They come back when their leases end.
                Err(error) => {
                    note(&self.rules.observer, StoreStep::Take, &error);
                    (0, Some(AWAY))
                }
            };
            let pause = async {
                match next {
                    _ if free == 0 => drop(running.join_next().await),
                    // A store may give fewer than there are.
                    _ if count > 0 => {}
                    None => changed.await,
                    Some(next) => {
                        // An instant that is past by now is looked at once more, not for ever.
                        let next = sleep(next.max(TICK));
                        let _whichever = select(pin!(changed), pin!(next)).await;
                    }
                }
            };
            if let Either::Left(_) = select(end.as_mut(), pin!(pause)).await {
                break;
            }
        }
        while running.join_next().await.is_some() {}
    }
}

impl<S: Clone, M: Clone> Clone for Runner<S, M> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            store: self.store.clone(),
            rules: self.rules.clone(),
            concurrency: self.concurrency,
            report_every: self.report_every,
        }
    }
}

impl<S, M: fmt::Debug> fmt::Debug for Runner<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("store", &self.store)
            .field("lease", &self.rules.lease)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Tells the metrics what the store holds.
async fn report<M: DeferredStore>(store: &M, observer: &Deferrals) {
    if !Deferrals::READS_STORES {
        return;
    }
    match store.counts().await {
        Ok(counts) => {
            let states = State::ALL.map(|state| (state.name(), counts.of(state)));
            observer.holds(&states, counts.bytes, counts.oldest_wait.unwrap_or_default());
        }
        Err(error) => note(observer, StoreStep::Count, &error),
    }
}

/// Tells what the store could not do.
fn note(observer: &Deferrals, step: StoreStep, error: &StoreError) {
    observer.store_failed(step, error.kind().name(), error);
}

/// Between two looks at a store that is away.
const AWAY: Duration = Duration::from_millis(200);
/// What timers can tell apart.
const TICK: Duration = Duration::from_millis(1);
