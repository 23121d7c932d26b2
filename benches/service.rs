//! What a layer adds to a request: `ready` and `call` around a service that answers at once,
//! beside the peers. Take the bare service off to have a layer's own time.
//!
//! `cargo bench --features axum --bench service`; for a moment only: add `-- --quick`.

use std::{
    convert::Infallible,
    future::{Future, Ready, poll_fn, ready},
    hint::black_box,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{body::Body, extract::ConnectInfo};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use tower::{Layer, Service};
use tower_governor::{
    GovernorLayer, governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor,
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

fn bench<S>(criterion: &mut Criterion, group: &str, name: &str, mut service: S)
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: std::fmt::Debug,
{
    let mut group = criterion.benchmark_group(group);
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            request,
            |request| {
                let _ = now(poll_fn(|context| service.poll_ready(context)));
                black_box(now(service.call(request)).is_ok())
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

const UNREACHED: u64 = 1_000_000_000;

fn admitted(criterion: &mut Criterion) {
    let group = "admitted";
    let quota = Quota::per_second(UNREACHED);
    let quiet = TooManyRequests::new().fields(FieldStyles::NONE);
    bench(criterion, group, "bare", Bare);

    let layer = TokenBucketLayer::new(quota).answer(quiet.clone());
    bench(criterion, group, "tower-quota, global", layer.layer(Bare));
    let layer = TokenBucketLayer::new(quota).key(ClientAddr::new()).answer(quiet);
    bench(criterion, group, "tower-quota, address", layer.layer(Bare));
    let layer = TokenBucketLayer::new(quota).key(ClientAddr::new()).answer(TooManyRequests::new());
    bench(criterion, group, "tower-quota, address, fields", layer.layer(Bare));

    let global = GovernorConfigBuilder::default()
        .per_nanosecond(1)
        .burst_size(u32::MAX)
        .key_extractor(GlobalKeyExtractor)
        .finish();
    let layer = GovernorLayer::new(Arc::new(global.expect("a quota")));
    bench(criterion, group, "tower_governor, global", Layer::<Bare>::layer(&layer, Bare));
    let plain = GovernorConfigBuilder::default().per_nanosecond(1).burst_size(u32::MAX).finish();
    let layer = GovernorLayer::new(Arc::new(plain.expect("a quota")));
    bench(criterion, group, "tower_governor, address", Layer::<Bare>::layer(&layer, Bare));
    let fields = GovernorConfigBuilder::default()
        .per_nanosecond(1)
        .burst_size(u32::MAX)
        .use_headers()
        .finish();
    let layer = GovernorLayer::new(Arc::new(fields.expect("a quota")));
    bench(criterion, group, "tower_governor, address, fields", Layer::<Bare>::layer(&layer, Bare));

    // It makes a timer when it is made.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without threads");
    let _inside = runtime.enter();
    let layer = tower::limit::RateLimitLayer::new(UNREACHED, Duration::from_secs(1));
    bench(criterion, group, "tower RateLimit, global", layer.layer(Bare));
}

fn refused(criterion: &mut Criterion) {
    let group = "refused";
    let quota = Quota::per_day(1);
    let spent = |answer: TooManyRequests| {
        let layer = TokenBucketLayer::new(quota).key(ClientAddr::new()).answer(answer);
        let mut service = layer.layer(Bare);
        let _ = now(service.call(request()));
        service
    };
    bench(criterion, group, "tower-quota, address, problem", spent(TooManyRequests::new()));

    let layer = TokenBucketLayer::new(quota)
        .key(ClientAddr::new())
        .answer(TooManyRequests::new().fields(FieldStyles::NONE).empty_body());
    let mut service = layer.layer(Bare);
    let _ = now(service.call(request()));
    bench(criterion, group, "tower-quota, address, bare", service);

    let config = GovernorConfigBuilder::default().per_second(86_400).burst_size(1).finish();
    let layer = GovernorLayer::new(Arc::new(config.expect("a quota")));
    let mut service = Layer::<Bare>::layer(&layer, Bare);
    let _ = now(service.call(request()));
    bench(criterion, group, "tower_governor, address", service);
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
