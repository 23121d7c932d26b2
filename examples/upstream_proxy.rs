//! A proxy that keeps all who use an API's account inside its limits: who would be refused waits.
//!
//! ```sh
//! # Against an API in this process that is strict:
//! cargo run --all-features --example upstream_proxy
//! # Against a real one, until it is stopped; a client's base URL is then http://127.0.0.1:8080/v1:
//! PROFILE=openai BASE=https://… KEY=sk-… cargo run --all-features --example upstream_proxy 127.0.0.1:8080
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{env, time::Duration};

use axum::{Router, body::Body, response::IntoResponse};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, time::Instant};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_quota::{
    http::TooManyRequests,
    testing::strict_upstream::{ProviderLimit, StrictUpstream},
    upstream::{Account, Pool, Profile, UpstreamLayer},
};

/// Passes requests on to `base` in the name of `key`, as the limits of `account` allow it.
pub(crate) fn proxy(account: Account, base: &Uri, key: &str) -> Result<Router, BoxError> {
    let (field, value) = match account.profile().name() {
        "anthropic" => ("x-api-key", key.to_owned()),
        "gemini" => ("x-goog-api-key", key.to_owned()),
        _ => ("authorization", format!("Bearer {key}")),
    };
    let mut value = HeaderValue::try_from(value)?;
    value.set_sensitive(true);
    let base = base.to_string().trim_end_matches('/').to_owned();
    let prepare = move |request: &mut Parts| {
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        request.uri = format!("{base}{path}").parse().unwrap_or_default();
        request.headers.remove(header::HOST);
        request.headers.remove(header::AUTHORIZATION);
        request.headers.insert(field, value.clone());
    };
    let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http();
    let connector = connector.enable_http1().enable_http2().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let pool = Pool::new().member(account, prepare);
    let service = ServiceBuilder::new()
        .layer(UpstreamLayer::new(pool).answer(TooManyRequests::new()))
        .map_response(|response: Response<Incoming>| response.map(Body::new))
        .service(client);
    Ok(Router::new().fallback(move |request: Request<Body>| async move {
        match service.oneshot(request).await {
            Ok(answer) => answer.map(Body::new),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    }))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if let Some(address) = env::args().nth(1) {
        let name = env::var("PROFILE").unwrap_or_else(|_| "openai".into());
        let profile = Profile::ready(&name).ok_or("there is no such profile")?;
        // Its limits are those that its answers tell.
        let account = Account::builder(profile).per_model().build()?;
        let app = proxy(account, &env::var("BASE")?.parse()?, &env::var("KEY")?)?;
        return Ok(axum::serve(TcpListener::bind(address).await?, app).await?);
    }

    // Four requests, and then one in half a second. Half of them are left for those that are late by as much as a
    // busy machine stalls; the default is a fifth of a second.
    let limit = ProviderLimit::requests(4).per(Duration::from_secs(2));
    let strict = StrictUpstream::builder().account("ours", ["sk-ours"], [limit]).build();
    let base = serve(strict.router()).await?;
    let openai = Profile::ready("openai").ok_or("it is ready-made")?;
    let account = Account::builder(openai)
        .limit("requests", tower_quota::Quota::new(4, Duration::from_secs(2))?)
        .jitter(Duration::from_millis(900))
        .build()?;
    let proxy = serve(proxy(account, &base, "sk-ours")?).await?;

    let begun = Instant::now();
    let asks = (1..=8).map(|number| {
        let url = format!("{proxy}v1/chat/completions");
        async move {
            let question = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
            let answer = reqwest::Client::new().post(url).body(question).send().await?;
            println!("{number}: {} after {:>4} ms", answer.status(), begun.elapsed().as_millis());
            answer.text().await
        }
    });
    futures::future::try_join_all(asks).await?;
    let record = strict.record();
    println!("the API let {} in and refused {}", record.admitted, record.refused.len());
    assert_eq!((record.admitted, record.refused.len()), (8, 0));
    Ok(())
}

/// Serves an application, and says where.
pub(crate) async fn serve(app: Router) -> Result<Uri, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let uri = format!("http://{}/", listener.local_addr()?).parse()?;
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(uri)
}
