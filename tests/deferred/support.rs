//! What the tests of this area have in common.

use std::{
    convert::Infallible,
    error::Error,
    fs,
    future::Future,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_quota::{
    deferred::{
        Bounds, Counts, Deferred, DeferredLayer, DeferredResults, DeferredStore, DiskStore, State,
        StoredBody,
    },
    http::{HeaderKey, header},
    time::SystemClock,
};

/// A folder of its own, gone with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-quota-deferred-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // What a process of the same id has left behind is of no use.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) type Layered = DeferredLayer<HeaderKey, DiskStore>;
pub(crate) type Upstream =
    BoxCloneService<Request<StoredBody>, Response<Full<Bytes>>, Box<dyn Error + Send + Sync>>;

/// A layer over a store in memory.
pub(crate) fn layer() -> Layered {
    bounded(Bounds::DEFAULT)
}

pub(crate) fn bounded(bounds: Bounds) -> Layered {
    let store = DiskStore::in_memory(bounds, SystemClock).expect("a thread");
    DeferredLayer::new(store, header("x-api-key"))
}

/// Requests as the upstream sees them.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Request<Bytes>>>>);

impl Seen {
    pub(crate) fn all(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    fn add(&self, request: Request<Bytes>) {
        self.0.lock().expect("no panic").push(request);
    }
}

/// An upstream that answers the number of its call by `answer`.
pub(crate) fn upstream<F>(
    answer: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> (Upstream, Seen)
where
    F: Future<Output = Response<&'static str>> + Send + 'static,
{
    let seen = Seen::default();
    let (calls, log) = (Arc::new(AtomicU32::new(0)), seen.clone());
    let service = service_fn(move |request: Request<StoredBody>| {
        let call = calls.fetch_add(1, Ordering::SeqCst) as usize;
        log.add(request.map(StoredBody::into_bytes));
        let answered = answer(call);
        async move { Ok(answered.await.map(Full::from)) }
    });
    (BoxCloneService::new(service), seen)
}

/// An upstream that says these, one after the other, and the last for ever.
pub(crate) fn answering(
    answers: &'static [(u16, &'static [(&'static str, &'static str)])],
) -> (Upstream, Seen) {
    upstream(move |call| {
        let (status, headers) = answers[call.min(answers.len() - 1)];
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        std::future::ready(response.body("an answer").expect("a response"))
    })
}

/// What is called where no request should come.
pub(crate) fn passed() -> Passed {
    BoxCloneService::new(service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::from("passed")))
    }))
}

pub(crate) type Passed = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

/// A server with the layer, and its results.
pub(crate) struct Site<M: DeferredStore> {
    service: Deferred<Passed, HeaderKey, M>,
    results: DeferredResults<HeaderKey, M>,
    pub(crate) store: M,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl<M: DeferredStore> Site<M> {
    pub(crate) fn new(layer: &DeferredLayer<HeaderKey, M>) -> Self {
        let (service, results) = (layer.layer(passed()), layer.results());
        Self { service, results, store: layer.store().clone() }
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Told {
        let service = self.service.clone();
        let response = service.oneshot(request).await.expect("it never fails");
        told(response).await
    }

    /// Sends a request that prefers to be answered later, and expects that it is accepted.
    pub(crate) async fn defer(&self, owner: &str, body: &'static str) -> String {
        let told = self.send(deferring(owner, body)).await;
        assert_eq!(told.status, 202, "{told:?}");
        told.json()["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn ask(&self, method: &str, owner: &str, path: &str) -> Told {
        let request = Request::builder().method(method).uri(path).header("x-api-key", owner);
        let request = request.body(()).expect("a request");
        let mut results = self.results.clone();
        told(results.call(request).await.expect("it never fails")).await
    }

    pub(crate) async fn state(&self, owner: &str, id: &str) -> String {
        let told = self.ask("GET", owner, &format!("/deferred/{id}")).await;
        assert_eq!(told.status, 200, "{told:?}");
        told.json()["state"].as_str().expect("a state").to_owned()
    }

    /// Waits until so many have ended.
    pub(crate) async fn until_ended(&self, count: u64) -> Counts {
        loop {
            let counts = self.store.counts().await.expect("it can be told");
            if counts.total() - counts.of(State::Waiting) - counts.of(State::Running) >= count {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

pub(crate) fn deferring(owner: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/v1/batch?x=1")
        .header("x-api-key", owner)
        .header("prefer", "respond-async")
        .header("content-type", "text/plain")
        .body(Full::from(body))
        .expect("a request")
}

async fn told<B>(response: Response<B>) -> Told
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let (parts, body) = response.into_parts();
    let text = body.collect().await.expect("a whole body").to_bytes();
    Told {
        status: StatusCode::as_u16(&parts.status),
        headers: parts.headers,
        text: String::from_utf8(text.to_vec()).expect("text"),
    }
}
