//! What a layer adds to a request: `ready` and `call` around a service that answers at once,
//! beside the peers. Take the bare service off to have a layer's own time: `report` does it.
//!
//! Each service is in a box, as a router holds what its routes lead to. Without, the compiler builds a
//! layer and the loop that measures it into one, each layer otherwise, and no server has that loop.
//!
//! `cargo bench --features axum --bench service`; for a moment only: add `-- --quick`. With the
//! features `metrics` and `tracing` it would measure those too.

use std::{
    convert::Infallible,
    fmt::Debug,
    future::{Future, Ready, poll_fn, ready},
    hint::black_box,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{body::Body, extract::ConnectInfo};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use tower::{Layer, Service, util::BoxService};
use tower_governor::{
    GovernorLayer,
    governor::{GovernorConfig, GovernorConfigBuilder},
    key_extractor::GlobalKeyExtractor,
};
use tower_quota::{
    Quota, TokenBucketLayer,
    http::{ClientAddr, FieldStyles, TooManyRequests},
};

/// A service that answers at once.
#[derive(Clone)]
struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::empty())))
    }
}

/// Polls a future that is ready.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn request() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4_711))));
    request
}

/// Benches `service` once its first request has been through, and looks whether it answers with
/// `status`.
fn bench<S>(criterion: &mut Criterion, product: &str, case: &str, status: u16, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Debug, Future: Send>,
    S: Send + 'static,
{
    let mut service = BoxService::new(service);
    let mut handle = |request| {
        now(poll_fn(|context| service.poll_ready(context))).expect("it is ready");
        now(service.call(request)).expect("it answers")
    };
    let _first = handle(request());
    assert_eq!(handle(request()).status(), status, "{product}, {case}");

    let mut group = criterion.benchmark_group("layer");
    group.bench_function(BenchmarkId::new(product, case), |bencher| {
        // So few that the requests stay in the first cache, as in a server.
        let few = BatchSize::NumIterations(64);
        bencher.iter_batched(request, |request| black_box(handle(request)), few);
    });
    group.finish();
}

const ADMITTED: u16 = 200;
const REFUSED: u16 = 429;

/// As many as nobody reaches, in our words and in the peer's.
const UNREACHED: u64 = 1_000_000_000;

fn unreached() -> TokenBucketLayer {
    TokenBucketLayer::new(Quota::per_second(UNREACHED))
}

/// One a day.
fn spent() -> TokenBucketLayer {
    TokenBucketLayer::new(Quota::per_day(1))
}

fn quiet() -> TooManyRequests {
    TooManyRequests::new().fields(FieldStyles::NONE)
}

macro_rules! governor {
    ($period:ident($count:expr), $burst:expr $(, $setting:ident($($value:expr)?))*) => {{
        let mut builder = GovernorConfigBuilder::default();
        builder.$period($count).burst_size($burst);
        let config = builder$(.$setting($($value)?))*.finish().expect("the quota is not zero");
        layered(config)
    }};
}

fn layered<K, M>(
    config: GovernorConfig<K, M>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Send
where
    K: tower_governor::key_extractor::KeyExtractor,
    M: governor::middleware::RateLimitingMiddleware<governor::clock::QuantaInstant>,
    tower_governor::governor::Governor<K, M, Bare, Body>:
        Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Send,
{
    GovernorLayer::new(Arc::new(config)).layer(Bare)
}

fn admitted(criterion: &mut Criterion) {
    let case = "admitted, global";
    bench(criterion, "bare", case, ADMITTED, Bare);
    bench(criterion, "tower-quota", case, ADMITTED, unreached().answer(quiet()).layer(Bare));
    let global = governor!(per_nanosecond(1), u32::MAX, key_extractor(GlobalKeyExtractor));
    bench(criterion, "tower_governor", case, ADMITTED, global);
    // Its timer, which is never set here, wants a runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime starts");
    let _entered = runtime.enter();
    let towers = tower::limit::RateLimitLayer::new(UNREACHED, Duration::from_secs(1)).layer(Bare);
    bench(criterion, "tower RateLimit", case, ADMITTED, towers);

    let case = "admitted, by address";
    bench(criterion, "bare", case, ADMITTED, Bare);
    let ours = unreached().key(ClientAddr::new()).answer(quiet()).layer(Bare);
    bench(criterion, "tower-quota", case, ADMITTED, ours);
    bench(criterion, "tower_governor", case, ADMITTED, governor!(per_nanosecond(1), u32::MAX));

    let case = "admitted, by address, with fields";
    bench(criterion, "bare", case, ADMITTED, Bare);
    let ours = unreached().key(ClientAddr::new()).answer(TooManyRequests::new()).layer(Bare);
    bench(criterion, "tower-quota", case, ADMITTED, ours);
    let fields = governor!(per_nanosecond(1), u32::MAX, use_headers());
    bench(criterion, "tower_governor", case, ADMITTED, fields);
}

/// The peer's refusal is a line of text and two fields. Ours is a problem document and three, or
/// one field alone.
fn refused(criterion: &mut Criterion) {
    let case = "refused, by address";
    let ours = spent().key(ClientAddr::new()).answer(TooManyRequests::new()).layer(Bare);
    bench(criterion, "tower-quota", case, REFUSED, ours);
    let ours = spent().key(ClientAddr::new()).answer(quiet().empty_body()).layer(Bare);
    bench(criterion, "tower-quota, `Retry-After` alone", case, REFUSED, ours);
    bench(criterion, "tower_governor", case, REFUSED, governor!(per_second(86_400), 1));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = admitted, refused
}
criterion_main!(benches);
