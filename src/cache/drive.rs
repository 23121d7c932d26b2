//! What the task does that asks a question: it calls the service, and reads the answer for all.

use std::{error::Error, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    channel::oneshot,
    future::{Either, select},
};
use http::{Extensions, HeaderMap, Method, Request, Response, header::CONTENT_LENGTH};
use http_body::Body;
use tower_service::Service;

use super::{
    answer::{Head, Part},
    directives::{Use, is_grpc_success},
    flight::Leader,
    key::AnswerKey,
    service::Settings,
    store::AnswerStore,
};
use crate::http::PeekedBody;

pub(super) struct Drive<P, K, M> {
    pub(super) leader: Leader,
    pub(super) key: AnswerKey,
    pub(super) ttl: Duration,
    pub(super) settings: Arc<Settings<P, K, M>>,
}

/// What the one who asked is told.
pub(super) enum Led<B> {
    /// The answer is read by all; these are the extensions of its head.
    Shared(Extensions),
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
        self,
        mut inner: S,
        request: Request<PeekedBody<ReqBody>>,
        tell: oneshot::Sender<Result<Led<ResBody>, S::Error>>,
    ) where
        S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>>,
        ReqBody: Body,
        ResBody: Body<Data = Bytes>,
        ResBody::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let has_body = request.method() != Method::HEAD;
        let called = async {
            poll_fn(|context| inner.poll_ready(context)).await?;
            inner.call(request).await
        };
        let response = match called.await {
            Ok(response) => response,
            // Whoever has gone meanwhile does not miss it.
            Err(error) => return self.tell(tell, Err(error)),
        };
        let (mut parts, body) = response.into_parts();
        let fresh_for = match Use::of(&parts, self.ttl, |name| self.settings.tells_apart_by(name)) {
            Use::Shared(fresh_for) => fresh_for,
            Use::Private => {
                self.leader.keep_private();
                return self.tell(tell, Ok(Led::Alone(Response::from_parts(parts, body))));
            }
            Use::Unsuccessful => {
                return self.tell(tell, Ok(Led::Alone(Response::from_parts(parts, body))));
            }
        };
        let extensions = std::mem::take(&mut parts.extensions);
        let length = body.size_hint().exact();
        let promised = if has_body { promised_length(&parts.headers) } else { None };
        let (status, version, headers) = (parts.status, parts.version, parts.headers);
        self.leader.head(Arc::new(Head { status, version, headers, length }));
        drop(tell.send(Ok(Led::Shared(extensions))));

        let Some(read) = self.read(body).await else { return };
        let is_whole = [length, promised].iter().flatten().all(|length| *length == read);
        if is_whole && !fresh_for.is_zero() {
            self.keep(fresh_for).await;
        }
    }

    /// Leaves the place, and tells the one who asked.
    fn tell<T>(self, tell: oneshot::Sender<T>, what: T) {
        drop(self.leader);
        drop(tell.send(what));
    }

    /// Reads the body for all, and says how long it was, unless it may not be kept.
    async fn read<B>(&self, body: B) -> Option<u64>
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
                    self.leader.part(part, body.is_end_stream());
                }
                Some(Err(error)) => {
                    self.leader.break_off(Arc::from(error.into()));
                    return None;
                }
                None => break,
            }
        }
        self.leader.end();
        is_success.then_some(length)
    }

    /// Keeps the answer before the flight is over: who comes then finds one or the other.
    async fn keep(&self, fresh_for: Duration) {
        if let Some(answer) = self.leader.answer(fresh_for) {
            let keep = fresh_for.saturating_add(self.settings.stale_for);
            // Nobody waits for it, and all have been answered.
            drop(self.settings.store.put(&self.key, answer, keep).await);
        }
    }
}

fn promised_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// How long a body is read that nobody wants: some clients go before its end.
const LINGER: Duration = Duration::from_secs(1);
