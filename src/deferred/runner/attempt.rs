//! One attempt: the service is called, the lease renewed, the end settled.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use tokio::time::{Instant, sleep};
use tower_service::Service;

use super::{
    super::{
        body::StoredBody,
        ends::End,
        message::StoredResponse,
        prefer::IDEMPOTENCY_KEY,
        status::{Failure, State},
        store::{DeferredStore, Ending, Job},
        verdict::Verdict,
    },
    Deferral, Ended, Rules,
    callback::call_back,
    note,
};
use crate::{
    observe::deferrals::{AttemptEnd, Deferrals, StoreStep},
    time::timer_now,
};

type BoxError = Box<dyn Error + Send + Sync>;

pub(super) struct Attempt<M> {
    pub(super) store: M,
    pub(super) rules: Rules,
    pub(super) job: Job,
}

/// What came of a call.
enum Came {
    Answer(StoredResponse),
    /// An answer without its body, which is too long.
    TooLarge(StoredResponse),
    Nothing(BoxError),
}

impl<M: DeferredStore> Attempt<M> {
    pub(super) async fn run<S, B>(mut self, service: S)
    where
        S: Service<Request<StoredBody>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let deferral = Deferral {
            id: self.job.ticket.id,
            owner: self.job.owner,
            attempt: self.job.attempt,
            label: self.job.label.as_str().into(),
        };
        let mut request = self.job.request.clone().into_request();
        let key = HeaderValue::try_from(deferral.id.to_string()).expect("an id is ASCII");
        request.headers_mut().insert(IDEMPOTENCY_KEY.clone(), key);
        request.extensions_mut().insert(deferral.clone());
        let is_first = self.job.ticket.number == 1;
        let waited = is_first.then_some(self.job.waited);
        let mut running = Running::begin(self.rules.observer.clone(), waited);
        let call = call(service, request, self.rules.max_result_bytes);
        let Some(came) = self.while_ours(call).await else { return };
        let took = running.elapsed();
        // Its body is not needed any more.
        self.job.request.body = Bytes::new();
        let ending = self.ending(came);
        if self.settle(&ending).await {
            running.end(&ending, took);
            drop(running);
            self.tell(deferral, ending).await;
        }
    }

    /// Renews the lease until `work` is done. `None`: the request is ours no longer.
    async fn while_ours<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let lease = self.rules.lease;
        loop {
            let third = pin!(sleep(lease / 3));
            match select(work, third).await {
                Either::Left((done, _)) => return Some(done),
                Either::Right(((), going_on)) => work = going_on,
            }
            let renewal = self.store.renew(&self.job.ticket, lease);
            // The work goes on meanwhile.
            match select(work, pin!(renewal)).await {
                Either::Left((done, _)) => return Some(done),
                Either::Right((Ok(false), _)) => return None,
                Either::Right((Ok(true), going_on)) => work = going_on,
                // A store that is away may be back before the lease is over.
                Either::Right((Err(error), going_on)) => {
                    note(&self.rules.observer, StoreStep::Renew, &error);
                    work = going_on;
                }
            }
        }
    }

    fn ending(&self, came: Came) -> Ending {
        let (verdict, response) = match came {
            Came::Answer(response) => ((self.rules.verdict)(Ok(&response)), Some(response)),
            Came::TooLarge(response) => match (self.rules.verdict)(Ok(&response)) {
                Verdict::Done => return Ending::Failed(Failure::TooLarge, None),
                verdict => (verdict, None),
            },
            Came::Nothing(error) => ((self.rules.verdict)(Err(&*error)), None),
        };
        match (verdict, response) {
            (Verdict::Done, Some(response)) => Ending::Done(response),
            // There is nothing that could be given.
            (Verdict::Done, None) => Ending::Failed(Failure::Attempts, None),
            (Verdict::Failed, response) => Ending::Failed(Failure::Refused, response),
            (Verdict::Refused { after }, _) => {
                let after = after.unwrap_or_else(|| self.backoff(1));
                // One wrong word must not stop all that its owner has.
                Ending::Refused { after: after.min(self.rules.longest_hold) }
            }
            (Verdict::Retry { .. }, response) if self.job.attempt >= self.job.max_attempts => {
                Ending::Failed(Failure::Attempts, response)
            }
            (Verdict::Retry { after }, _) => {
                let attempt = self.job.attempt;
                Ending::Retry { after: after.unwrap_or_else(|| self.backoff(attempt)) }
            }
        }
    }

    /// The wait after so many attempts.
    fn backoff(&self, attempts: u32) -> Duration {
        let (first, most) = self.rules.backoff;
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        let wait = first.saturating_mul(doubled).min(most);
        // An id is random. Another one waits for another time.
        let [part, ..] = *self.job.ticket.id.as_bytes();
        wait.saturating_add(wait / 1_024 * u32::from(part))
    }

    /// Whether it was settled. An answer is not given up because the store is away or full: asked
    /// again it would cost again.
    async fn settle(&self, ending: &Ending) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.store.settle(&self.job.ticket, ending.clone()).await {
                Ok(settled) => return settled,
                Err(error) => note(&self.rules.observer, StoreStep::Settle, &error),
            }
            // A store that has no room for the answer may have some for this. If not, or if it was
            // settled after all, the next try says so.
            let _renewed = self.store.renew(&self.job.ticket, self.rules.lease).await;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tells of the end, if it is one.
    async fn tell(&self, deferral: Deferral, ending: Ending) {
        let Rules { observer, ends, on_end, .. } = &self.rules;
        if let Ending::Failed(failure, _) = &ending {
            observer.gave_up(&deferral.id, failure.name(), deferral.attempt);
        }
        let (state, failure, response) = match ending {
            Ending::Done(response) => (State::Done, None, Some(response)),
            Ending::Failed(failure, response) => (State::Failed, Some(failure), response),
            Ending::Refused { .. } | Ending::Retry { .. } => return,
        };
        ends.tell(&deferral.id, || End { state, response: response.clone() });
        let Some(on_end) = on_end else { return };
        let ended = Ended { deferral, state, failure, response };
        call_back(&**on_end, ended, observer).await;
    }
}

/// An attempt that is under way, for those who watch.
struct Running {
    observer: Deferrals,
    begun: Instant,
    end: Option<(AttemptEnd, Duration)>,
}

impl Running {
    fn begin(observer: Deferrals, waited: Option<Duration>) -> Self {
        observer.begins(waited);
        Self { observer, begun: timer_now(), end: None }
    }

    fn elapsed(&self) -> Duration {
        timer_now().saturating_duration_since(self.begun)
    }

    fn end(&mut self, ending: &Ending, took: Duration) {
        let end = match ending {
            Ending::Done(_) => AttemptEnd::Done,
            Ending::Failed(..) => AttemptEnd::Failed,
            Ending::Retry { .. } => AttemptEnd::Retried,
            Ending::Refused { .. } => AttemptEnd::Refused,
        };
        self.end = Some((end, took));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let is_panic = std::thread::panicking();
        let otherwise = if is_panic { AttemptEnd::Panicked } else { AttemptEnd::Lost };
        let (end, took) = self.end.unwrap_or_else(|| (otherwise, self.elapsed()));
        self.observer.attempted(end, took);
    }
}

async fn call<S, B>(mut service: S, request: Request<StoredBody>, bound: usize) -> Came
where
    S: Service<Request<StoredBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if let Err(error) = poll_fn(|context| service.poll_ready(context)).await {
        return Came::Nothing(error.into());
    }
    let response = match service.call(request).await {
        Ok(response) => response,
        Err(error) => return Came::Nothing(error.into()),
    };
    let (parts, body) = response.into_parts();
    let mut body = pin!(body);
    let mut read = BytesMut::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Came::Nothing(error.into()),
        };
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > bound - read.len() {
            return Came::TooLarge(StoredResponse::new(parts, Bytes::new()));
        }
        read.extend_from_slice(data);
    }
    Came::Answer(StoredResponse::new(parts, read.freeze()))
}

/// Between two tries to settle.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
