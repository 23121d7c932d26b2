//! A gateway before large-model APIs: many tenants share a few accounts and stay inside their limits.
//!
//! ```sh
//! cargo run --release --example gateway --all-features                 # a demonstration
//! cargo run --release --example gateway --all-features -- gateway.toml # the real thing
//! ```
//!
//! Without a configuration it brings a provider of its own, strict as the real ones, and tenants who
//! ask for more than there is: look at the page that it prints. It runs until Ctrl-C; without a terminal,
//! or with `TOWER_QUOTA_DEMO_SECONDS=10`, for as many seconds. `gateway.toml` explains the real thing.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to who starts it")]

mod app;
mod call;
mod config;
mod deferral;
mod demo;
mod health;
mod live;
mod metrics;
mod numbers;
mod page;
mod plans;
mod refusal;
mod reload;
mod serve;
mod status;
mod tenants;
mod upstream;

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tower::BoxError;

use self::{config::Config, live::Gateway};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let result = match (arguments.next(), arguments.next()) {
        (None, _) => demonstrate().await,
        (Some(path), None) => serve_file(path.into()).await,
        _ => Err("give it one configuration file, or none for a demonstration".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The real thing.
async fn serve_file(path: PathBuf) -> Result<(), BoxError> {
    // Read before it is put in force: a change that comes meanwhile is seen as one.
    let known = std::fs::read(&path).ok();
    let config = Config::read(&path, &|name| std::env::var(name).ok())?;
    let gateway = Arc::new(Gateway::new(config)?);
    let running = Running::start(Arc::clone(&gateway)).await?;
    println!("tenants: http://{}   page: http://{}", running.tenants, running.page);
    let reloads = tokio::spawn(reload::watch(gateway, path, known));
    until_told().await;
    println!("draining");
    reloads.abort();
    running.stop().await;
    Ok(())
}

/// Its own provider, its own tenants.
async fn demonstrate() -> Result<(), BoxError> {
    let seconds = std::env::var("TOWER_QUOTA_DEMO_SECONDS").ok();
    let seconds = seconds.map(|seconds| seconds.parse::<u64>()).transpose()?;
    let seconds = seconds.or_else(|| (!std::io::stdin().is_terminal()).then_some(10));

    let demo = demo::Demo::start().await?;
    let gateway = Arc::new(Gateway::new(demo.config()?)?);
    let running = Running::start(Arc::clone(&gateway)).await?;
    println!("Four tenants ask three accounts for more than these have. Look at it here:\n");
    println!("    http://{}\n", running.page);
    demo.ask(running.tenants);
    match seconds {
        Some(seconds) => {
            println!("It ends by itself after {seconds} s.");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                () = until_told() => {}
            }
        }
        None => until_told().await,
    }
    demo.quiet();
    running.stop().await;
    demo.sum_up(&gateway);
    Ok(())
}

/// Both listeners.
struct Running {
    tenants: std::net::SocketAddr,
    page: std::net::SocketAddr,
    gateway: Arc<Gateway>,
    stop: watch::Sender<bool>,
    look: tokio::task::JoinHandle<()>,
    servers: [tokio::task::JoinHandle<()>; 2],
    runner: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(gateway: Arc<Gateway>) -> Result<Self, BoxError> {
        let server = gateway.live().config.server.clone();
        let bind = |address| async move {
            let listener = TcpListener::bind(address).await;
            listener.map_err(|error| format!("{address} cannot be listened at: {error}"))
        };
        let (tenants, page) = (bind(server.listen).await?, bind(server.page).await?);
        let addresses = (tenants.local_addr()?, page.local_addr()?);
        let (stop, stopped) = watch::channel(false);
        let (ticks, ticking) = watch::channel(status::status(&gateway).to_string().into());
        let look = tokio::spawn(page::look(Arc::clone(&gateway), ticks));
        let serve = |listener, app| {
            let (patience, drain) = (server.read_timeout, server.drain);
            tokio::spawn(serve::serve(listener, app, patience, stopped.clone(), drain))
        };
        let servers = [
            serve(tenants, app::router(Arc::clone(&gateway))),
            serve(page, page::router(Arc::clone(&gateway), ticking)),
        ];
        let mut end = stopped.clone();
        let end = Box::pin(async move { drop(end.changed().await) });
        let runner = tokio::spawn(deferral::Later::run(Arc::clone(&gateway), end));
        let (tenants, page) = addresses;
        Ok(Self { tenants, page, gateway, stop, look, servers, runner })
    }

    /// Takes no more calls, and lets those that are there end.
    async fn stop(self) {
        self.gateway.numbers.drain();
        // Pages wait for the next second for ever: with whoever tells it they end.
        self.look.abort();
        self.stop.send_replace(true);
        for server in self.servers {
            let _ = server.await;
        }
        // Deferred calls that do not end in time are run again at the next start.
        let drain = self.gateway.live().config.server.drain;
        let mut runner = self.runner;
        if tokio::time::timeout(drain, &mut runner).await.is_err() {
            runner.abort();
        }
    }
}

/// Until Ctrl-C, or a polite request to end.
async fn until_told() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
