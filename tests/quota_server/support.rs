//! A quota service on loopback, and those who ask it.

use std::{net::SocketAddr, sync::Arc};

use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tower_quota::{
    backend::LocalBuilder,
    quota_service::{
        QuotaService,
        envoy::{
            RateLimitClient, RateLimitServer,
            proto::{
                self, Entry, RateLimitDescriptor, RateLimitRequest, RateLimitResponse, UInt64Value,
            },
        },
        http::QuotaRouter,
    },
    time::{ManualClock, Timestamp},
};

/// A service by these rules, at a time of the test's choice.
pub(crate) fn service_at(rules: &str, now: Timestamp) -> (QuotaService, ManualClock) {
    let clock = ManualClock::starting_at(now);
    let backend = LocalBuilder::new().build_with_clock(clock.clone());
    (QuotaService::new(rules.parse().expect("rules"), backend), clock)
}

/// A gRPC server that serves until the test ends.
pub(crate) async fn serve(server: RateLimitServer) -> SocketAddr {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = incoming.local_addr().expect("an address");
    tokio::spawn(Server::builder().add_service(server).serve_with_incoming(incoming));
    address
}

/// A client of the service, as Envoy is one.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    token: Option<Arc<str>>,
}

impl Client {
    pub(crate) async fn of(service: &QuotaService) -> Self {
        Self::to(serve(RateLimitServer::new(service.clone())).await)
    }

    pub(crate) fn to(address: SocketAddr) -> Self {
        let endpoint = Endpoint::new(format!("http://{address}")).expect("an address");
        Self { channel: endpoint.connect_lazy(), token: None }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn token(self, token: &str) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    pub(crate) async fn try_ask(
        &self,
        request: RateLimitRequest,
    ) -> Result<RateLimitResponse, Status> {
        let mut request = tonic::Request::new(request);
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().expect("a token");
            request.metadata_mut().insert("authorization", value);
        }
        RateLimitClient::new(self.channel.clone()).should_rate_limit(request).await
    }

    #[track_caller]
    pub(crate) fn ask(&self, request: RateLimitRequest) -> impl Future<Output = RateLimitResponse> {
        let asked = self.clone();
        async move { asked.try_ask(request).await.expect("an answer") }
    }

    pub(crate) async fn refused(&self, request: RateLimitRequest) -> Code {
        self.try_ask(request).await.expect_err("the call is refused").code()
    }
}

pub(crate) fn request<const N: usize>(
    domain: &str,
    descriptors: [RateLimitDescriptor; N],
) -> RateLimitRequest {
    RateLimitRequest { domain: domain.into(), descriptors: descriptors.into(), hits_addend: 0 }
}

pub(crate) fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |&(key, value): &(&str, &str)| Entry { key: key.into(), value: value.into() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..Default::default() }
}

pub(crate) fn with_hits(descriptor: RateLimitDescriptor, hits: u64) -> RateLimitDescriptor {
    RateLimitDescriptor { hits_addend: Some(UInt64Value { value: hits }), ..descriptor }
}

/// What a response says, in a form that tests can compare.
pub(crate) fn told(response: &RateLimitResponse) -> (proto::Code, Vec<(proto::Code, u32)>) {
    let statuses = response.statuses.iter().map(|status| (status.code(), status.limit_remaining));
    (response.overall_code(), statuses.collect())
}

/// A service at a minute's beginning.
pub(crate) fn service(rules: &str) -> (QuotaService, ManualClock) {
    service_at(rules, Timestamp::from_secs(1_200_000_000))
}

/// An HTTP server that serves until the test ends.
pub(crate) async fn serve_http(router: QuotaRouter) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router.build()).await });
    address
}
