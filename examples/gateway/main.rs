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

mod accounts;
mod answers;
mod app;
mod bodies;
mod call;
mod config;
mod deferral;
mod demo;
mod fields;
mod health;
mod hosts;
mod live;
mod lookout;
mod metrics;
mod models;
mod numbers;
mod page;
mod patient;
mod plans;
mod refusal;
mod reload;
mod serve;
mod state;
mod status;
mod store;
mod tenants;
mod upstream;

use std::{
    io::IsTerminal as _, net::SocketAddr, num::NonZeroUsize, path::PathBuf, process::ExitCode,
    sync::Arc, time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tower::BoxError;

use self::{
    config::{Config, Server},
    live::Gateway,
    lookout::Lookout,
    serve::Door,
};

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
    // Before anybody can know that it is there: who is told to end from here on ends well.
    let mut signals = Signals::new();
    // Read before it is put in force: a change that comes meanwhile is seen as one.
    let known = reload::Texts::read(&path);
    let config = Config::read(&path, &|name| std::env::var(name).ok())?;
    let gateway = Arc::new(Gateway::new(config)?);
    let mut running = Running::start(Arc::clone(&gateway)).await?;
    println!("tenants: http://{}   page: http://{}", running.tenants, running.page);
    let reloads = tokio::spawn(reload::watch(gateway, path, known));
    tokio::select! {
        () = signals.next() => {}
        // Whoever watches over it starts another: one that lets nobody in is worse than none.
        () = running.broken() => return Err("a door has ended by itself".into()),
    }
    println!("draining");
    reloads.abort();
    running.stop_unless(&mut signals).await;
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
    let mut signals = Signals::new();
    match seconds {
        Some(seconds) => {
            println!("It ends by itself after {seconds} s.");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                () = signals.next() => {}
            }
        }
        None => signals.next().await,
    }
    demo.quiet();
    running.stop_unless(&mut signals).await;
    demo.sum_up(&gateway);
    Ok(())
}

/// Both doors.
struct Running {
    tenants: SocketAddr,
    page: SocketAddr,
    gateway: Arc<Gateway>,
    lookout: JoinHandle<()>,
    look: JoinHandle<()>,
    doors: [(watch::Sender<bool>, JoinHandle<()>); 2],
    runner: (watch::Sender<bool>, JoinHandle<()>),
}

impl Running {
    async fn start(gateway: Arc<Gateway>) -> Result<Self, BoxError> {
        let server = gateway.live().config.server.clone();
        let bind = |address| async move {
            let listener = TcpListener::bind(address).await;
            listener.map_err(|error| format!("{address} cannot be listened at: {error}"))
        };
        let listeners = (bind(server.listen).await?, bind(server.page).await?);
        let (tenants, page) = (listeners.0.local_addr()?, listeners.1.local_addr()?);
        // The first that is told is whole, if that does not take long.
        let _ = tokio::time::timeout(FIRST_LOOK, gateway.lookout.look(&gateway)).await;
        let lookout = tokio::spawn(Lookout::run(Arc::clone(&gateway)));
        let (ticks, ticking) = watch::channel(status::status(&gateway).to_string().into());
        let look = tokio::spawn(page::look(Arc::clone(&gateway), ticks));
        let open = |door: Door, listener| {
            let (stop, stopped) = watch::channel(false);
            (stop, tokio::spawn(door.serve(listener, stopped)))
        };
        let of_tenants = Door {
            app: app::router(Arc::clone(&gateway)),
            full: app::full(),
            server: server.clone(),
            connections: Arc::clone(&gateway.numbers.connections),
        };
        let of_operators = Door {
            app: page::router(Arc::clone(&gateway), ticking),
            full: app::full(),
            server: Server { max_connections: OPERATORS, drain: LOOKED_AT, ..server },
            connections: Arc::default(),
        };
        let doors = [open(of_tenants, listeners.0), open(of_operators, listeners.1)];
        let (end, mut ended) = watch::channel(false);
        let end_of_runner = Box::pin(async move { drop(ended.changed().await) });
        let runner = tokio::spawn(deferral::Later::run(Arc::clone(&gateway), end_of_runner));
        Ok(Self { tenants, page, gateway, lookout, look, doors, runner: (end, runner) })
    }

    /// Waits until a door is closed that nobody has closed.
    async fn broken(&mut self) {
        let [(_, tenants), (_, operators)] = &mut self.doors;
        tokio::select! {
            _ = tenants => {}
            _ = operators => {}
        }
    }

    /// Ends well, or at once at a signal: whoever asks twice means it. What is not written then counts as
    /// reserved.
    async fn stop_unless(self, signals: &mut Signals) {
        tokio::select! {
            () = self.stop() => {}
            () = signals.next() => {
                eprintln!("ended at once by a second signal");
                std::process::exit(1);
            }
        }
    }

    /// Lets it be known that it ends, takes no more calls, lets those that are there end, and writes what
    /// they came to.
    async fn stop(self) {
        let server = self.gateway.live().config.server.clone();
        self.gateway.numbers.drain();
        // Whoever sends calls here finds that out when it looks next.
        tokio::time::sleep(server.drain_delay).await;
        let [tenants, operators] = self.doors;
        let (end, mut runner) = self.runner;
        end.send_replace(true);
        let deferred = async {
            // Those that do not end in time are run again, here or by another instance.
            if tokio::time::timeout(server.drain, &mut runner).await.is_err() {
                runner.abort();
                drop(runner.await);
            }
        };
        tokio::join!(close(tenants), deferred);
        // Answers that are kept are read by nobody's connection, and for a moment longer than
        // these: what they come to begins to be written when they end.
        let _ = tokio::time::timeout(LEFT_ALONE, self.gateway.numbers.idle()).await;
        // It asks the server too, and nobody has to wait for that.
        self.lookout.abort();
        self.gateway.home.written().await;
        // Pages wait for the next second for ever: with whoever tells it they end.
        self.look.abort();
        close(operators).await;
    }
}

async fn close((stop, door): (watch::Sender<bool>, JoinHandle<()>)) {
    stop.send_replace(true);
    let _ = door.await;
}

/// Ctrl-C, and polite requests to end.
struct Signals {
    #[cfg(unix)]
    terminated: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Self { terminated: signal(SignalKind::terminate()).ok() }
        }
        #[cfg(not(unix))]
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(terminated) = &mut self.terminated {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// The connections of operators at a time.
const OPERATORS: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
/// How long the start waits for what is told of plans and deferred calls.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// How long they may still look when all is done.
const LOOKED_AT: Duration = Duration::from_secs(2);
/// How long answers may go on that nobody waits for any more: longer than the memory of answers
/// lets them.
const LEFT_ALONE: Duration = Duration::from_secs(3);
