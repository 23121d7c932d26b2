//! A server of both protocols, until it is told to stop.

use std::{error::Error, future::Future};

use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Server as GrpcServer, server::TcpIncoming};
use tower_quota::{
    PolicyName,
    algorithm::Portion,
    backend::{
        DynBackend, GuardedBuilder, LocalBuilder,
        guarded::Fallback,
        redis::{RedisBuilder, Server},
    },
    quota_service::{
        BearerTokens, QuotaService, RuleFile, envoy::RateLimitServer, http::QuotaRouter,
    },
    time::SystemClock,
};

use crate::settings::Settings;

#[expect(clippy::print_stderr, reason = "a server's log")]
pub(crate) async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    let (mut file, rules) = RuleFile::open(&settings.rules)?;
    let service = QuotaService::new(rules, store(&settings)?);
    if let Err(error) = service.check().await {
        eprintln!("the store cannot be reached, so limits are kept by shares: {error}");
    }
    let tokens = settings.tokens()?;
    let grpc_tokens = tokens.clone().filter(|_| settings.grpc_needs_token);
    let http = TcpListener::bind(settings.http).await?;
    let grpc = TcpIncoming::bind(settings.grpc)?;
    eprintln!("HTTP at {}, gRPC at {}", http.local_addr()?, grpc.local_addr()?);

    let followed = service.clone();
    let every = settings.reload_every();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            match file.read_again() {
                Ok(None) => {}
                Ok(Some(rules)) => {
                    followed.set_rules(rules);
                    eprintln!("new rules are in force");
                }
                Err(error) => eprintln!("the rules in force stay: {error}"),
            }
        }
    });
    let (stop, stopped) = watch::channel(());
    tokio::spawn(async move {
        told_to_stop().await;
        drop(stop);
    });
    run(service, http, grpc, tokens, grpc_tokens, || {
        let mut stopped = stopped.clone();
        async move {
            // It ends when its sender is gone, and only then.
            let _ = stopped.changed().await;
        }
    })
    .await
}

/// Serves both until `stopped`, and what is under way then to its end.
pub(crate) async fn run<F>(
    service: QuotaService,
    http: TcpListener,
    grpc: TcpIncoming,
    http_tokens: Option<BearerTokens>,
    grpc_tokens: Option<BearerTokens>,
    stopped: impl Fn() -> F,
) -> Result<(), Box<dyn Error>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut router = QuotaRouter::new(service.clone());
    if let Some(tokens) = http_tokens {
        router = router.tokens(tokens);
    }
    let mut rate_limit = RateLimitServer::new(service);
    if let Some(tokens) = grpc_tokens {
        rate_limit = rate_limit.tokens(tokens);
    }
    let http = axum::serve(http, router.build()).with_graceful_shutdown(stopped());
    let grpc =
        GrpcServer::builder().add_service(rate_limit).serve_with_incoming_shutdown(grpc, stopped());
    let (http, grpc) = tokio::join!(http, grpc);
    http?;
    Ok(grpc?)
}

/// Where the states are: in this process, or on a server that all quota servers share.
fn store(settings: &Settings) -> Result<DynBackend<tower_quota::algorithm::Plan>, Box<dyn Error>> {
    let Some(redis) = &settings.redis else {
        return Ok(DynBackend::new(LocalBuilder::new().build_with_clock(SystemClock)));
    };
    let server = Server::open(redis.url()?.as_str()).map_err(|_| {
        // The error may have the URL in it, and the URL a password.
        "`redis.url_from`: the variable must be an address like redis://user:password@host:6379"
    })?;
    let backend = RedisBuilder::new(server, PolicyName::from_static("quota-service")).build();
    let share = Fallback::LocalShare(Portion::of(redis.servers)?);
    Ok(DynBackend::new(GuardedBuilder::new(share).build(backend)))
}

async fn told_to_stop() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! { _ = interrupt => {}, _ = terminate.recv() => {} }
            return;
        }
    }
    let _ = interrupt.await;
}
