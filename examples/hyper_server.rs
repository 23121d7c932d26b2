//! A layer on a bare hyper server: no framework, only Tower's `Service` between the two.
//!
//! ```sh
//! cargo run --example hyper_server
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{convert::Infallible, error::Error};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use reqwest::StatusCode;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_quota::{
    Quota, TokenBucketLayer,
    http::{ClientAddr, PeerAddr, TooManyRequests},
};

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

/// Serves each connection in a task, as hyper's own examples do. All share the layer's budgets.
async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let layer = TokenBucketLayer::new(Quota::per_minute(3))
        .key(ClientAddr::new())
        .answer(TooManyRequests::new());
    loop {
        let (connection, peer) = listener.accept().await?;
        let service = ServiceBuilder::new()
            // Only we know who connected: the layer finds it in the extensions.
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(PeerAddr(peer));
                request
            })
            .layer(layer.clone())
            .service(service_fn(hello));
        let connection = TokioIo::new(connection);
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that hangs up is no error of the server's.
            _ = server.serve_connection(connection, TowerToHyperService::new(service)).await;
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve(listener));

    for expected in [200, 200, 200, 429] {
        // A connection for each request.
        let response = reqwest::get(&url).await?;
        assert_eq!(response.status(), StatusCode::from_u16(expected)?);
        println!("{} {:?}", response.status(), response.headers()["ratelimit"]);
    }
    Ok(())
}
