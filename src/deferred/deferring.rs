//! The way of one request into the store, and of the answer to its caller.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use http::{HeaderValue, Response, StatusCode, request};
use http_body::Body;
use tokio::time::{sleep, timeout};

use super::{
    answer,
    body::StoredBody,
    ends::{End, Watch},
    id::{Owner, RequestId},
    message::StoredRequest,
    prefer::IDEMPOTENCY_KEY,
    settings::Settings,
    store::{DeferredStore, Submitted},
    terms::Terms,
};
use crate::observe::deferrals::{StoreStep, Submission};

/// A request that is to be stored.
pub(super) struct Deferring<M> {
    pub(super) store: M,
    pub(super) settings: Arc<Settings>,
    pub(super) owner: Owner,
    pub(super) terms: Terms,
    /// For how long its caller waits for the answer itself.
    pub(super) wait: Duration,
}

impl<M: DeferredStore> Deferring<M> {
    pub(super) async fn answer<B>(self, parts: &request::Parts, body: B) -> Response<StoredBody>
    where
        B: Body<Data = Bytes>,
    {
        let observer = self.settings.observer.clone();
        let mut keys = parts.headers.get_all(&IDEMPOTENCY_KEY).iter();
        let (idempotency_key, None) = (keys.next(), keys.next()) else {
            observer.submitted(Submission::Unreadable);
            return answer::problem(StatusCode::BAD_REQUEST, "there are two idempotency keys");
        };
        let body = match read(body, self.settings.max_request_bytes).await {
            Ok(body) => body,
            Err(Unread::TooLarge) => {
                observer.submitted(Submission::TooLarge);
                let detail = "the body is longer than a deferred request's may be";
                return answer::problem(StatusCode::PAYLOAD_TOO_LARGE, detail);
            }
            Err(Unread::Broken) => {
                observer.submitted(Submission::Unreadable);
                return answer::problem(StatusCode::BAD_REQUEST, "the body broke off");
            }
        };
        let Ok(id) = RequestId::random() else {
            observer.submitted(Submission::Refused("no_id"));
            let detail = "no id can be made for the request";
            return answer::problem(StatusCode::INTERNAL_SERVER_ERROR, detail);
        };
        let request = StoredRequest::new(parts, &self.settings.headers, body);
        let idempotency_key = idempotency_key.map(HeaderValue::as_bytes);
        let terms = self.terms.clone();
        let submission = self.settings.submission(id, self.owner, request, terms, idempotency_key);
        // From before there is anything to hear of.
        let watch = (!self.wait.is_zero()).then(|| self.settings.ends.watch(id));
        match self.store.submit(submission).await {
            Ok(Submitted::New) => {
                observer.submitted(Submission::Accepted);
                self.accepted(id, true, watch).await
            }
            Ok(Submitted::Known(earlier)) => {
                observer.submitted(Submission::Repeated);
                let watch = watch.map(|_| self.settings.ends.watch(earlier));
                self.accepted(earlier, false, watch).await
            }
            Ok(Submitted::Conflict) => {
                observer.submitted(Submission::Conflict);
                let detail = "the idempotency key was used for another request";
                answer::problem(StatusCode::UNPROCESSABLE_ENTITY, detail)
            }
            Err(error) => {
                let reason = error.kind().name();
                observer.submitted(Submission::Refused(reason));
                if !error.kind().is_bound() {
                    observer.store_failed(StoreStep::Submit, reason, &error);
                }
                answer::failed(&error)
            }
        }
    }

    /// The answer itself if it comes in time. Otherwise where it will be.
    async fn accepted(
        self,
        id: RequestId,
        is_new: bool,
        watch: Option<Watch>,
    ) -> Response<StoredBody> {
        let Self { settings, wait, .. } = &self;
        if let Some(watch) = watch {
            // What was there before may have ended long ago.
            let first_look = if is_new { FIRST_LOOK } else { Duration::ZERO };
            let ended = timeout(*wait, self.end_of(id, &watch, first_look)).await.ok().flatten();
            settings.observer.waited(ended.is_some());
            if let Some(response) = ended {
                return response;
            }
        }
        answer::accepted(&settings.at, &id, is_new, *wait)
    }

    /// Waits for the end of a request. `None`: it was forgotten.
    async fn end_of(
        &self,
        id: RequestId,
        watch: &Watch,
        first_look: Duration,
    ) -> Option<Response<StoredBody>> {
        let Self { store, settings, owner, wait, .. } = self;
        let mut pause = first_look;
        loop {
            // It may end in another process, of which nobody tells.
            if let Either::Left((end, _)) = select(pin!(watch.end()), pin!(sleep(pause))).await {
                return Some(answer::in_time(&settings.at, &id, end, *wait));
            }
            pause = (pause * 2).clamp(FIRST_LOOK, LONGEST_LOOK);
            match store.result(owner, &id).await {
                Ok(Some((status, response))) if status.state.is_end() => {
                    let end = End { state: status.state, response };
                    return Some(answer::in_time(&settings.at, &id, end, *wait));
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                // It may be back before the time is over.
                Err(error) => {
                    settings.observer.store_failed(StoreStep::Look, error.kind().name(), &error);
                }
            }
        }
    }
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    Broken,
}

/// Reads a body, but nothing of what comes after the first frame that exceeds `bound`.
async fn read<B: Body<Data = Bytes>>(body: B, bound: usize) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > bound as u64 {
        return Err(Unread::TooLarge);
    }
    let mut body = pin!(body);
    let mut read = BytesMut::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|_| Unread::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > bound - read.len() {
            return Err(Unread::TooLarge);
        }
        read.extend_from_slice(data);
    }
    Ok(read.freeze())
}

/// Between two looks at a request that may end in another process.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
