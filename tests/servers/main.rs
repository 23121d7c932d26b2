//! The layers in real servers and around real clients, over loopback.

mod axum_router;
mod concurrency;
mod http2;
mod hyper_connections;
mod reqwest_client;
mod reqwest_layers;
mod tonic_server;
mod upgrade;

use axum::Router;
use tokio::net::TcpListener;

/// Serves `app` on a free port. Its address, as a URL.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let service = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    url
}
