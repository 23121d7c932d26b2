//! A provider that names its limits, and instances that were told of different ones.

use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tower::{BoxError, Layer as _, Service, ServiceExt as _, service_fn};
use tower_quota::{
    PolicyName,
    algorithm::Plan,
    backend::redis::{RedisBuilder, Server},
    upstream::{Account, Board, Profile, UpstreamLayer},
};

use crate::servers::Standalone;

/// An instance of a fleet with one ledger and, to tell them of different limits, boards of their own.
fn instance(
    url: &str,
    told: &'static str,
) -> impl Service<Request<Body>, Error = BoxError, Future: Send> + Clone + use<> {
    let source = Server::open(url).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("account"));
    let account = Account::builder(Profile::ready("ietf").expect("it is ready-made"))
        .backend(redis.timeout(Duration::from_secs(60)).build::<Plan>())
        .board(Board::new())
        .jitter(Duration::ZERO)
        .max_wait(Duration::from_millis(500))
        .build()
        .expect("an account");
    UpstreamLayer::new(account).layer(service_fn(move |_| async move {
        let answer = Response::builder().header("ratelimit-policy", told);
        Ok::<_, BoxError>(answer.body(Body::empty()).expect("an answer"))
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_were_told_of_other_limits_count_one_by_its_name_on_a_server() {
    let server = Standalone::start();
    let one = instance(&server.url(), r#""zz";q=5;w=3600"#);
    let other = instance(&server.url(), r#""aa";q=900;w=3600, "zz";q=5;w=3600"#);
    let ask = async |is_one: bool| {
        let request = Request::new(Body::empty());
        match is_one {
            true => one.clone().oneshot(request).await.map(drop),
            false => other.clone().oneshot(request).await.map(drop),
        }
    };
    // The first of each knows of no limit yet. The name that comes first is the later one's.
    for is_one in [true, true, true, false, false, false, true] {
        ask(is_one).await.expect("there is room");
    }
    ask(true).await.expect_err("five were sent");
    ask(false).await.expect_err("five were sent");
}
