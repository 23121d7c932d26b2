use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::ALLOW};
use tower_service::Service;

use super::{
    answer,
    body::StoredBody,
    ends::End,
    error::StoreError,
    id::{Owner, RequestId},
    service::DeferredFuture,
    settings::Settings,
    status::State,
    store::{Canceled, DeferredStore},
};
use crate::{
    observe::deferrals::{Lookup, StoreStep},
    policy::{KeyOf, Subject},
};

/// Tells owners how their deferred requests stand, and gives them their answers.
///
/// | request | answer |
/// |---|---|
/// | `GET /deferred/{id}` | 200, and how it stands as JSON; `Retry-After` until it has ended |
/// | `GET /deferred/{id}/result` | the answer of the service, with its status, header fields and body |
/// | … before it is there | 202, and how it stands |
/// | … of one that has failed | its last answer, or 502 if it had none |
/// | … of one that expired or was canceled | 410 |
/// | `DELETE /deferred/{id}` | 204: it is canceled, or if it had ended, forgotten |
/// | anything of somebody else's, or forgotten | 404 |
///
/// How it stands: `id`, `state` ([`State::name`]), `attempts`, `failure`
/// ([`Failure`](super::Failure)) of one that failed; `submitted`, `expires` and of one that has
/// ended `kept_until`, in seconds since the Unix epoch; `status` and `result`, the paths of this
/// table.
///
/// The id is taken from the end of the path, so it does not matter what a router does to its
/// beginning. No cache may keep an answer, whatever the service said of its own: what was public
/// for its caller is here for the owner only.
///
/// What has been fetched stays, until its [time](super::DeferredLayer::keep) is over or it is
/// deleted.
pub struct DeferredResults<K, M> {
    key: K,
    store: M,
    settings: Arc<Settings>,
}

impl<K, M> DeferredResults<K, M> {
    pub(super) fn new(key: K, store: M, settings: Settings) -> Self {
        Self { key, store, settings: Arc::new(settings) }
    }
}

impl<K, M, B> Service<Request<B>> for DeferredResults<K, M>
where
    K: KeyOf<Request<B>>,
    K::Future: Send + 'static,
    M: DeferredStore,
{
    type Response = Response<StoredBody>;
    type Error = Infallible;
    type Future = DeferredFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let subject = self.key.key_of(&request);
        let asked = Asked::of(request.uri().path());
        let method = request.method().clone();
        let (store, settings) = (self.store.clone(), Arc::clone(&self.settings));
        DeferredFuture::new(async move {
            let (Some(asked), Subject::Counted(key)) = (asked, subject.await) else {
                return Ok(unknown(&settings));
            };
            let owner = settings.owner(&key);
            let step = match method {
                Method::DELETE => StoreStep::Cancel,
                _ => StoreStep::Look,
            };
            let told = match (method, asked) {
                (Method::GET | Method::HEAD, Asked::Status(id)) => {
                    status(&store, &settings, &owner, &id).await
                }
                (Method::GET | Method::HEAD, Asked::Result(id)) => {
                    result(&store, &settings, &owner, &id).await
                }
                (Method::DELETE, Asked::Status(id)) => cancel(&store, &settings, &owner, &id).await,
                (_, Asked::Status(_)) => Ok(not_allowed("GET, HEAD, DELETE")),
                (_, Asked::Result(_)) => Ok(not_allowed("GET, HEAD")),
            };
            Ok(told.unwrap_or_else(|error| {
                settings.observer.store_failed(step, error.kind().name(), &error);
                answer::failed(&error)
            }))
        })
    }
}

/// What a path asks for.
enum Asked {
    Status(RequestId),
    Result(RequestId),
}

impl Asked {
    fn of(path: &str) -> Option<Self> {
        let (before, last) = path.rsplit_once('/')?;
        if last != "result" {
            return last.parse().ok().map(Self::Status);
        }
        let id = before.rsplit_once('/').map_or(before, |(_, id)| id);
        id.parse().ok().map(Self::Result)
    }
}

type Told = Result<Response<StoredBody>, StoreError>;

async fn status(
    store: &impl DeferredStore,
    settings: &Settings,
    owner: &Owner,
    id: &RequestId,
) -> Told {
    Ok(match store.status(owner, id).await? {
        Some(status) => {
            settings.observer.looked_up(Lookup::Status);
            answer::standing(StatusCode::OK, &settings.at, &status)
        }
        None => unknown(settings),
    })
}

async fn result(
    store: &impl DeferredStore,
    settings: &Settings,
    owner: &Owner,
    id: &RequestId,
) -> Told {
    let Some((status, response)) = store.result(owner, id).await? else {
        return Ok(unknown(settings));
    };
    settings.observer.looked_up(match (status.state, &response) {
        (State::Waiting | State::Running, _) => Lookup::NotYet,
        (State::Done | State::Failed, Some(_)) => Lookup::Answer,
        _ => Lookup::NoAnswer,
    });
    Ok(answer::result(&settings.at, &status, response))
}

async fn cancel(
    store: &impl DeferredStore,
    settings: &Settings,
    owner: &Owner,
    id: &RequestId,
) -> Told {
    Ok(match store.cancel(owner, id).await? {
        Some(canceled) => {
            settings.observer.looked_up(match canceled {
                Canceled::Canceled => {
                    settings.ends.tell(id, || End { state: State::Canceled, response: None });
                    Lookup::Canceled
                }
                // Who waits looks, and finds nothing.
                Canceled::Forgotten => Lookup::Forgotten,
            });
            let mut response = Response::new(StoredBody::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        None => unknown(settings),
    })
}

fn unknown(settings: &Settings) -> Response<StoredBody> {
    settings.observer.looked_up(Lookup::Unknown);
    answer::problem(StatusCode::NOT_FOUND, "there is no such request")
}

fn not_allowed(methods: &'static str) -> Response<StoredBody> {
    let detail = "a deferred request is looked at or deleted";
    let mut response = answer::problem(StatusCode::METHOD_NOT_ALLOWED, detail);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

impl<K: Clone, M: Clone> Clone for DeferredResults<K, M> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            store: self.store.clone(),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<K, M: fmt::Debug> fmt::Debug for DeferredResults<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredResults").field("store", &self.store).finish_non_exhaustive()
    }
}
