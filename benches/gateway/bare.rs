//! A reverse proxy that does nothing: hyper on either side.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use hyper::{
    Request, Response, body::Incoming, header::HOST, server::conn::http1, service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

/// A process of its own, as the others are. Dropped, it is killed.
pub(crate) struct Bare {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Bare {
    pub(crate) fn start(provider: SocketAddr) -> Self {
        let own = env::current_exe().expect("a bench is a program");
        let mut child = Command::new(own)
            .env(BARE, provider.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started again");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        Self { child, address: line.trim().parse().expect("an address") }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the provider is, if this process is to be the proxy.
pub(crate) fn provider() -> Option<SocketAddr> {
    env::var(BARE).ok()?.parse().ok()
}

/// Is the proxy.
pub(crate) async fn serve(provider: SocketAddr) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    println!("{}", listener.local_addr().expect("it is bound"));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).expect("it is a socket");
        let client = client.clone();
        let service = service_fn(move |request| pass(client.clone(), provider, request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn pass(
    client: Client<HttpConnector, Incoming>,
    provider: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let uri = format!("http://{provider}{}", request.uri().path());
    *request.uri_mut() = uri.parse().expect("the path was one");
    request.headers_mut().remove(HOST);
    client.request(request).await
}

const BARE: &str = "TOWER_QUOTA_BENCH_BARE_PROXY_TO";
