//! One request's way: to the store, to a flight, to the service.

mod given;

use std::{error::Error, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::channel::oneshot;
use http::{Request, Response, request};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use self::given::{kept, not_cached, passed, shared};
use super::{
    body::AnswerBody,
    directives::{Fit, FreshFor, Wish},
    drive::{Drive, Led},
    flight::{Leader, Outcome, Reader, Role},
    found::Found,
    key::AnswerKey,
    settings::Settings,
    status::{CacheStatus, Forward},
    store::AnswerStore,
    turn::{Asking, Claim, Turn},
};
use crate::{
    http::PeekedBody,
    key::Key,
    maybe_ready::MaybeReady,
    observe::answers::{Served, StoreCall},
    policy::Subject,
    time::timer_now,
};

type BoxError = Box<dyn Error + Send + Sync>;
type Answered<B, E> = Result<Response<AnswerBody<B>>, E>;

/// A service that can be asked in a task of its own.
pub(super) trait Answers<ReqBody: Body, ResBody>:
    Service<
        Request<PeekedBody<ReqBody>>,
        Response = Response<ResBody>,
        Error: Send + 'static,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl<S, ReqBody: Body, ResBody> Answers<ReqBody, ResBody> for S where
    S: Service<
            Request<PeekedBody<ReqBody>>,
            Response = Response<ResBody>,
            Error: Send + 'static,
            Future: Send,
        > + Clone
        + Send
        + 'static
{
}

/// A request, the service that it may need, and what the layer was told.
pub(super) struct Exchange<S, P, K, M> {
    inner: S,
    settings: Arc<Settings<P, K, M>>,
}

/// A question: what it is known by, and what it takes to ask it.
struct Question {
    key: AnswerKey,
    parts: request::Parts,
    body: Bytes,
    wish: Wish,
}

impl<S, P, K, M> Exchange<S, P, K, M> {
    pub(super) const fn new(inner: S, settings: Arc<Settings<P, K, M>>) -> Self {
        Self { inner, settings }
    }

    pub(super) async fn answer<ReqBody, ResBody, F>(
        self,
        request: Request<ReqBody>,
        subject: MaybeReady<F>,
    ) -> Answered<ResBody, S::Error>
    where
        S: Answers<ReqBody, ResBody>,
        P: Fn(&request::Parts) -> bool + Send + Sync + 'static,
        K: Send + Sync + 'static,
        F: Future<Output = Subject> + Send,
        M: AnswerStore,
        ReqBody: Body<Data = Bytes, Error: Send> + Send + 'static,
        ResBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, body) = request.into_parts();
        if !(self.settings.concerns)(&parts) {
            return self.pass(parts, PeekedBody::unread(body), Forward::Bypass).await;
        }
        let wish = Wish::of(&parts);
        if wish.bypass {
            return self.pass_by(parts, PeekedBody::unread(body), wish).await;
        }
        let Subject::Counted(scope) = subject.await else {
            return self.pass_by(parts, PeekedBody::unread(body), wish).await;
        };
        let body = match PeekedBody::read(body, self.settings.max_request_bytes).await {
            Ok(body) => body,
            Err(body) => return self.pass_by(parts, body, wish).await,
        };
        match self.key_of(&scope, &parts, &body) {
            Some(key) => match self.settings.look_up(&key, wish).await {
                Looked::Fresh(found) => Ok(self.settings.hit(&found)),
                // It needs much more room than a hit does.
                looked => Box::pin(self.ask(Question { key, parts, body, wish }, looked)).await,
            },
            None => self.pass_by(parts, PeekedBody::of_bytes(body), wish).await,
        }
    }

    /// Goes on without a look at the store, unless the service is not to be asked.
    async fn pass_by<ReqBody, ResBody>(
        self,
        parts: request::Parts,
        body: PeekedBody<ReqBody>,
        wish: Wish,
    ) -> Answered<ResBody, S::Error>
    where
        S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>>,
        ReqBody: Body,
    {
        if wish.only_cached {
            self.settings.observer.served(Served::NotCached);
            return Ok(not_cached());
        }
        self.pass(parts, body, Forward::Bypass).await
    }

    fn key_of(&self, scope: &Key, parts: &request::Parts, body: &[u8]) -> Option<AnswerKey> {
        let Settings { headers, ignored, is_any_host, .. } = &*self.settings;
        AnswerKey::new(scope, parts, headers, body, ignored, *is_any_host).ok()
    }

    /// What the store has, then whoever asks the same, then the service.
    async fn ask<ReqBody, ResBody>(
        self,
        question: Question,
        mut looked: Looked,
    ) -> Answered<ResBody, S::Error>
    where
        S: Answers<ReqBody, ResBody>,
        P: Send + Sync + 'static,
        K: Send + Sync + 'static,
        M: AnswerStore,
        ReqBody: Body<Data = Bytes, Error: Send> + Send + 'static,
        ResBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Question { key, wish, .. } = question;
        let bound = self.settings.max_answer_bytes;
        let begun = timer_now();
        let mut failures = 0;
        loop {
            let why = match looked {
                Looked::Fresh(found) => return Ok(self.settings.hit(&found)),
                Looked::Stale(found) => {
                    let response = self.settings.hit(&found);
                    if !wish.only_cached {
                        self.renew(question);
                    }
                    return Ok(response);
                }
                Looked::Nothing(why) => why,
            };
            if wish.only_cached {
                self.settings.observer.served(Served::NotCached);
                return Ok(not_cached());
            }
            if wish.is_new_only {
                self.settings.observer.served(Served::Miss);
                let (leader, reader) = self.settings.flights.begin(key, bound);
                return self.lead(question, leader, reader, Turn::free(), why).await;
            }
            if failures > 1 {
                // One after the other, they would wait for as many calls as there are of them.
                let Question { parts, body, .. } = question;
                return self.pass(parts, PeekedBody::of_bytes(body), why).await;
            }
            match self.settings.flights.join(key, bound, self.settings.join_within) {
                Role::Leader(leader, reader) => {
                    // Who asked before may have been answered since we looked, and somebody
                    // elsewhere may be asking.
                    return match self.settings.claim(&key, wish, begun).await {
                        Err(found) => Ok(self.settings.hit(&found)),
                        Ok(turn) => {
                            self.settings.observer.served(Served::Miss);
                            self.lead(question, leader, reader, turn, why).await
                        }
                    };
                }
                Role::Follower(reader) => match reader.head().await {
                    Outcome::Head(head) => {
                        self.settings.observer.served(Served::Collapsed);
                        return Ok(shared(&head, reader, CacheStatus::Collapsed(why)));
                    }
                    Outcome::Alone => {
                        let Question { parts, body, .. } = question;
                        return self.pass(parts, PeekedBody::of_bytes(body), why).await;
                    }
                    // The one that asked has nothing for us. It may be our turn.
                    Outcome::Retry => failures += 1,
                },
            }
            looked = self.settings.look_up(&key, wish).await;
        }
    }

    /// Goes on to the service, and lets others share what comes.
    async fn lead<ReqBody, ResBody>(
        self,
        question: Question,
        leader: Leader,
        reader: Reader,
        turn: Turn,
        why: Forward,
    ) -> Answered<ResBody, S::Error>
    where
        S: Answers<ReqBody, ResBody>,
        P: Send + Sync + 'static,
        K: Send + Sync + 'static,
        M: AnswerStore,
        ReqBody: Body<Data = Bytes, Error: Send> + Send + 'static,
        ResBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Question { key, parts, body, .. } = question;
        let ttl = parts.extensions.get::<FreshFor>().map_or(self.settings.ttl, |ttl| ttl.0);
        let (tell, told) = oneshot::channel();
        let drive = Drive { leader, turn, key, ttl, settings: self.settings };
        let request = Request::from_parts(parts, PeekedBody::of_bytes(body));
        let task = tokio::spawn(drive.run(self.inner, request, tell));
        match told.await {
            Ok(Ok(Led::Shared(extensions, is_stored))) => {
                let Outcome::Head(head) = reader.head().await else {
                    unreachable!("the head is there before the leader is told")
                };
                let status =
                    if is_stored { CacheStatus::Stored(why) } else { CacheStatus::Forwarded(why) };
                let mut response = shared(&head, reader, status);
                *response.extensions_mut() = extensions;
                Ok(response)
            }
            Ok(Ok(Led::Alone(response))) => Ok(passed(response, why)),
            Ok(Err(error)) => Err(error),
            Err(oneshot::Canceled) => match task.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is going down, and this request with it.
                _ => std::future::pending().await,
            },
        }
    }

    /// Fetches a new answer for one that is too old, unless somebody does.
    fn renew<ReqBody, ResBody>(self, question: Question)
    where
        S: Answers<ReqBody, ResBody>,
        P: Send + Sync + 'static,
        K: Send + Sync + 'static,
        M: AnswerStore,
        ReqBody: Body<Data = Bytes, Error: Send> + Send + 'static,
        ResBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Settings { flights, max_answer_bytes, stale_for, join_within, .. } = &*self.settings;
        let time = *stale_for;
        let role = flights.join(question.key, *max_answer_bytes, *join_within);
        let Role::Leader(leader, reader) = role else { return };
        let renewed = async move {
            // Who renewed it before may have finished since we looked, or somebody elsewhere does.
            let claim = self.settings.store.claim(&question.key, Asking::default()).await;
            let Ok(Claim::Ask(turn)) = claim else { return };
            if let Ok(response) = self.lead(question, leader, reader, turn, Forward::Stale).await {
                let mut body = Box::pin(response.into_body());
                while let Some(Ok(_)) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
                }
            }
        };
        // One that takes longer must not keep others from asking.
        drop(tokio::spawn(tokio::time::timeout(time, renewed)));
    }

    /// Goes on to the service alone.
    async fn pass<ReqBody, ResBody>(
        mut self,
        parts: request::Parts,
        body: PeekedBody<ReqBody>,
        why: Forward,
    ) -> Answered<ResBody, S::Error>
    where
        S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>>,
        ReqBody: Body,
    {
        self.settings.observer.served(match why {
            Forward::Bypass => Served::Bypass,
            _ => Served::Miss,
        });
        poll_fn(|context| self.inner.poll_ready(context)).await?;
        let response = self.inner.call(Request::from_parts(parts, body)).await?;
        Ok(passed(response, why))
    }
}

impl<P, K, M: AnswerStore> Settings<P, K, M> {
    async fn look_up(&self, key: &AnswerKey, wish: Wish) -> Looked {
        if wish.is_new_only {
            return Looked::Nothing(Forward::Request);
        }
        let found = match self.store.get(key).await {
            Ok(Some(found)) => found,
            Ok(None) => return Looked::Nothing(Forward::Miss),
            // A store that cannot say is as good as an empty one.
            Err(error) => {
                self.observer.store_failed(StoreCall::Get, &error);
                return Looked::Nothing(Forward::Miss);
            }
        };
        match wish.fit(&found) {
            Fit::Fresh => Looked::Fresh(found),
            Fit::Stale => Looked::Stale(found),
            Fit::Unwanted => Looked::Nothing(Forward::Request),
            Fit::TooOld => Looked::Nothing(Forward::Stale),
        }
    }

    /// Waits for leave to ask.
    ///
    /// # Errors
    ///
    /// Instead there is an answer.
    async fn claim(&self, key: &AnswerKey, wish: Wish, begun: Instant) -> Result<Turn, Found> {
        loop {
            let waited = timer_now().saturating_duration_since(begun);
            match self.store.claim(key, wish.asking(waited)).await {
                Ok(Claim::Found(found)) => return Err(found),
                Ok(Claim::Ask(turn)) => return Ok(turn),
                Ok(Claim::Wait(pause)) => tokio::time::sleep(pause.max(SHORTEST_PAUSE)).await,
                Err(error) => {
                    self.observer.store_failed(StoreCall::Claim, &error);
                    return Ok(Turn::free());
                }
            }
        }
    }

    fn hit<B>(&self, found: &Found) -> Response<AnswerBody<B>> {
        self.observer.served(if found.is_fresh() { Served::Hit } else { Served::Stale });
        kept(found)
    }
}

/// A store that says nothing better.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// What the store has for a request.
enum Looked {
    Fresh(Found),
    /// It may be given if a new one is fetched.
    Stale(Found),
    /// Nothing that will do.
    Nothing(Forward),
}
