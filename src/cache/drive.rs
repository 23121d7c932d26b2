//! What the task does that asks a question: it calls the service, and reads the answer for all.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    channel::oneshot,
    future::{Either, select},
};
use http::{Extensions, HeaderMap, Method, Request, Response, header::CONTENT_LENGTH};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    answer::{Head, Part},
    complete,
    directives::{Lifetime, Use, is_grpc_success},
    flight::Leader,
    key::AnswerKey,
    settings::Settings,
    store::AnswerStore,
    turn::{Turn, TurnEnd},
};
use crate::{
    http::PeekedBody,
    observe::answers::{Fate, StoreCall},
    time::timer_now,
};

pub(super) struct Drive<P, K, M> {
    pub(super) leader: Leader,
    pub(super) turn: Turn,
    pub(super) key: AnswerKey,
    pub(super) ttl: Duration,
    pub(super) settings: Arc<Settings<P, K, M>>,
}

/// What the one who asked is told.
pub(super) enum Led<B> {
    /// The answer is read by all; these are the extensions of its head, and whether it is kept.
    Shared(Extensions, bool),
    /// The answer is for nobody else.
    Alone(Response<B>),
}

impl<P, K, M: AnswerStore> Drive<P, K, M> {
    /// Asks, as long as anybody wants to know.
    pub(super) async fn run<S, ReqBody, ResBody>(
        self,
        inner: S,
        request: Request<PeekedBody<ReqBody>>,
        tell: oneshot::Sender<Result<Led<ResBody>, S::Error>>,
    ) where
        S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>>,
        ReqBody: Body,
        ResBody: Body<Data = Bytes>,
        ResBody::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let audience = self.leader.audience();
        let work = pin!(self.ask(inner, request, tell));
        let gone = pin!(audience.gone(LINGER));
        match select(work, gone).await {
            Either::Left(((), _)) | Either::Right(((), _)) => {}
        }
    }

    async fn ask<S, ReqBody, ResBody>(
        mut self,
        mut inner: S,
        request: Request<PeekedBody<ReqBody>>,
        tell: oneshot::Sender<Result<Led<ResBody>, S::Error>>,
    ) where
        S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>>,
        ReqBody: Body,
        ResBody: Body<Data = Bytes>,
        ResBody::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let asked = timer_now();
        let has_body = request.method() != Method::HEAD;
        let called = async {
            poll_fn(|context| inner.poll_ready(context)).await?;
            inner.call(request).await
        };
        let response = match called.await {
            Ok(response) => response,
            // Whoever has gone meanwhile does not miss it.
            Err(error) => return self.tell(Fate::Unsuccessful, tell, Err(error)),
        };
        let (mut parts, body) = response.into_parts();
        let lifetime = match Use::of(&parts, self.ttl, |name| self.settings.tells_apart_by(name)) {
            Use::Shared(lifetime) => lifetime,
            Use::Private => {
                self.leader.keep_private();
                self.turn.end(TurnEnd::Unshared);
                let response = Response::from_parts(parts, body);
                return self.tell(Fate::Private, tell, Ok(Led::Alone(response)));
            }
            Use::Unsuccessful => {
                let response = Response::from_parts(parts, body);
                return self.tell(Fate::Unsuccessful, tell, Ok(Led::Alone(response)));
            }
        };
        let extensions = std::mem::take(&mut parts.extensions);
        let length = body.size_hint().exact();
        let promised = if has_body { promised_length(&parts.headers) } else { None };
        let (status, version, headers) = (parts.status, parts.version, parts.headers);
        self.leader.head(Arc::new(Head { status, version, headers, length }));

        let mut rest = pin!(self.finish(body, [length, promised], lifetime, asked));
        // An answer that is there as a whole is kept by now, and its head says so.
        let first = poll_fn(|context| Poll::Ready(rest.as_mut().poll(context))).await;
        let is_stored = first == Poll::Ready(Fate::Stored);
        drop(tell.send(Ok(Led::Shared(extensions, is_stored))));
        if first.is_pending() {
            rest.await;
        }
    }

    /// Leaves the place, and tells the one who asked.
    fn tell<T>(self, fate: Fate, tell: oneshot::Sender<T>, what: T) {
        self.settings.observer.answered(fate);
        drop(self.leader);
        drop(tell.send(what));
    }

    /// Reads the body for all, and keeps the answer before the flight and the turn are over: who
    /// comes then finds one or the other.
    async fn finish<B>(
        &mut self,
        body: B,
        lengths: [Option<u64>; 2],
        lifetime: Lifetime,
        asked: Instant,
    ) -> Fate
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let fate = match self.read(body).await {
            Ok(read) if lengths.iter().flatten().all(|length| *length == read) => {
                self.keep(lifetime, timer_now().saturating_duration_since(asked)).await
            }
            Ok(_) => Fate::Broken,
            Err(fate) => fate,
        };
        self.turn.end(match fate {
            Fate::Stored => TurnEnd::Kept,
            Fate::Broken | Fate::Unsuccessful => TurnEnd::Failed,
            _ => TurnEnd::Unshared,
        });
        self.settings.observer.answered(fate);
        fate
    }

    /// Reads the body for all, and says how long it was.
    ///
    /// # Errors
    ///
    /// Why it may not be kept.
    async fn read<B>(&mut self, body: B) -> Result<u64, Fate>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut body = pin!(body);
        let mut length = 0;
        let mut is_success = true;
        while !body.is_end_stream() {
            self.leader.room().await;
            match poll_fn(|context| body.as_mut().poll_frame(context)).await {
                Some(Ok(frame)) => {
                    let Some(part) = Part::from_frame(frame) else { continue };
                    if let Part::Trailers(trailers) = &part {
                        is_success &= is_grpc_success(trailers);
                    }
                    length += part.len() as u64;
                    if !self.leader.part(part, body.is_end_stream()) {
                        // It will not be kept: nobody elsewhere has to wait for its end.
                        self.turn.end(TurnEnd::Unshared);
                    }
                }
                Some(Err(error)) => {
                    self.leader.break_off(Arc::from(error.into()));
                    return Err(Fate::Broken);
                }
                None => break,
            }
        }
        self.leader.end();
        if is_success { Ok(length) } else { Err(Fate::Unsuccessful) }
    }

    /// Keeps the answer that is whole `delay` after it was asked for.
    async fn keep(&self, lifetime: Lifetime, delay: Duration) -> Fate {
        let Settings { store, stale_for, keep_if, observer, .. } = &*self.settings;
        let fresh_for = lifetime.after(delay);
        if fresh_for.is_zero() {
            return Fate::NotFresh;
        }
        let Some(answer) = self.leader.answer(fresh_for, delay) else { return Fate::TooLarge };
        match complete::Body::of(&answer) {
            complete::Body::Whole if keep_if(&answer) => {}
            complete::Body::Whole | complete::Body::Unreadable => return Fate::Declined,
            complete::Body::Cut => return Fate::Broken,
            complete::Body::Failed => return Fate::Unsuccessful,
        }
        let stale_for = if lifetime.may_be_stale { *stale_for } else { Duration::ZERO };
        // Nobody waits for it, and all have been answered.
        match store.put(&self.key, answer, fresh_for.saturating_add(stale_for)).await {
            Ok(()) => {
                if let Some(size) = store.size() {
                    observer.holds(size.entries, size.bytes);
                }
                Fate::Stored
            }
            Err(error) => {
                observer.store_failed(StoreCall::Put, &error);
                Fate::StoreFailed
            }
        }
    }
}

fn promised_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How long a body is read that nobody wants: some clients go before its end.
const LINGER: Duration = Duration::from_secs(1);
