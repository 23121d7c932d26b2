//! Counts clients by address, behind a trusted proxy and without one. What a client writes into
//! `X-Forwarded-For` itself has no effect.
//!
//! ```sh
//! cargo run --features axum --example axum_client_addr
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{error::Error, io, net::SocketAddr};

use axum::{Router, routing::get};
use tower_quota::{
    Quota, TokenBucketLayer,
    http::{ClientAddr, TooManyRequests, TrustedProxies},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The proxies are elsewhere, so whoever connects from here is the client, whatever it says.
    let server = serve(ClientAddr::behind(TrustedProxies::parse(["10.0.0.0/8"])?)).await?;
    let forger = |number: u32| format!("203.0.113.{number}");
    assert_eq!(admitted(server, "a client that forges", forger).await?, 3);

    // The proxy is here. It appends the address of its client to what that client sent.
    let server = serve(ClientAddr::behind(TrustedProxies::loopback())).await?;
    let forger = |number: u32| format!("203.0.113.{number}, 198.51.100.7");
    assert_eq!(admitted(server, "198.51.100.7 that forges", forger).await?, 3);
    // Another client of the same proxy has a budget of its own.
    let honest = |_| "198.51.100.8".to_owned();
    assert_eq!(admitted(server, "198.51.100.8", honest).await?, 3);
    Ok(())
}

/// Three requests an hour for each client.
async fn serve(client: ClientAddr) -> io::Result<SocketAddr> {
    let layer =
        TokenBucketLayer::new(Quota::per_hour(3)).key(client).answer(TooManyRequests::new());
    let app = Router::new().route("/", get(|| async { "hello" })).layer(layer);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // Without the connect info there is no address to count by.
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, service).into_future());
    Ok(address)
}

/// How many of ten requests are admitted.
async fn admitted(
    server: SocketAddr,
    who: &str,
    forwarded_for: impl Fn(u32) -> String,
) -> Result<usize, reqwest::Error> {
    let (client, url) = (reqwest::Client::new(), format!("http://{server}"));
    let mut admitted = 0;
    for number in 0..10 {
        let request = client.get(&url).header("x-forwarded-for", forwarded_for(number));
        admitted += usize::from(request.send().await?.status().is_success());
    }
    println!("{who}: {admitted} of 10 admitted");
    Ok(admitted)
}
