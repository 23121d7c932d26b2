//! So many callers, each with one request after the other.

use std::{convert::Infallible, future::Future, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    deferred::{DeferredLayer, DeferredStore, StoredBody},
    http::{HeaderKey, header},
};

use crate::{AT_ONCE, BODY, Extent, quantile};

/// What came of it.
pub(crate) struct Load {
    /// A second.
    pub(crate) rate: f64,
    /// Milliseconds of one.
    pub(crate) median: f64,
    /// The same, of the slowest in a hundred.
    pub(crate) late: f64,
}

/// `callers` who call `one` again and again.
pub(crate) async fn load<F, Fut>(extent: Extent, callers: usize, one: F) -> Load
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let one = one.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < extent.time {
                let asked = Instant::now();
                one().await;
                times.push(asked.elapsed().as_secs_f64() * 1_000.0);
            }
            times
        });
    }
    let times: Vec<f64> = tasks.join_all().await.into_iter().flatten().collect();
    Load {
        rate: times.len() as f64 / begun.elapsed().as_secs_f64(),
        median: quantile(times.clone(), 0.5),
        late: quantile(times, 0.99),
    }
}

pub(crate) type Layered<M> = DeferredLayer<HeaderKey, M>;

/// What has ended is forgotten soon, so that the store is as large at the end as at the beginning: that
/// is part of the work.
pub(crate) fn layer<M: DeferredStore>(store: M) -> Layered<M> {
    DeferredLayer::new(store, header("x-api-key"))
        .keep(Duration::from_secs(2))
        .max_wait(Duration::from_secs(60))
}

/// A runner whose service has the answer.
pub(crate) fn run<M: DeferredStore>(layer: &Layered<M>) -> JoinHandle<()> {
    let answer = Bytes::from(vec![b'a'; BODY]);
    let service = service_fn(move |_: Request<StoredBody>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(answer))) }
    });
    let concurrency = NonZeroUsize::new(AT_ONCE).expect("it is not zero");
    tokio::spawn(layer.runner(service).concurrency(concurrency).run())
}

/// Sends a request that is to be answered with this status: 202, or 200 once it is done.
pub(crate) fn send<M: DeferredStore>(
    layer: &Layered<M>,
    prefer: &'static str,
    status: u16,
) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Clone + Send + 'static {
    let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let body = Bytes::from(vec![b'q'; BODY]);
    move || {
        let mut request = Request::new(Full::new(body.clone()));
        let headers = request.headers_mut();
        headers.insert("x-api-key", http::HeaderValue::from_static("sk-one-of-many"));
        headers.insert("prefer", http::HeaderValue::from_static(prefer));
        let sent = service.clone().oneshot(request);
        Box::pin(async move {
            let Ok(response) = sent.await;
            assert_eq!(response.status(), status);
        })
    }
}
