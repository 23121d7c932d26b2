//! A server of several apps, on one thread.

use std::{net::SocketAddr, sync::mpsc, thread, time::Duration};

use axum::{Router, serve::ListenerExt};
use tokio::{net::TcpListener, runtime, sync::mpsc as async_mpsc};

/// Runs until the process ends.
pub(crate) struct Server {
    addresses: Vec<SocketAddr>,
    /// Asks the server's thread for its processor time.
    asked: async_mpsc::UnboundedSender<mpsc::Sender<Option<Duration>>>,
}

impl Server {
    pub(crate) fn start(apps: Vec<Router>) -> Self {
        let (asked, mut asks) = async_mpsc::unbounded_channel::<mpsc::Sender<_>>();
        let (started, addresses) = mpsc::channel();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async move {
                for app in apps {
                    let listener = TcpListener::bind("127.0.0.1:0").await;
                    let listener = listener.expect("loopback has a port");
                    let address = listener.local_addr().expect("it is bound");
                    started.send(address).expect("it is waited for");
                    // Or the kernel holds an answer back until the one before is acknowledged.
                    let listener = listener.tap_io(|stream| {
                        stream.set_nodelay(true).expect("it is a socket");
                    });
                    let app = app.into_make_service_with_connect_info::<SocketAddr>();
                    tokio::spawn(async { axum::serve(listener, app).await });
                }
                drop(started);
                while let Some(answer) = asks.recv().await {
                    let _ = answer.send(thread_time());
                }
            });
        });
        Self { addresses: addresses.iter().collect(), asked }
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The time that the server's thread has spent on a processor.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let (answer, answered) = mpsc::channel();
        self.asked.send(answer).ok()?;
        answered.recv().ok()?
    }
}

#[cfg(all(feature = "coarse-clock", target_os = "linux"))]
fn thread_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

#[cfg(not(all(feature = "coarse-clock", target_os = "linux")))]
const fn thread_time() -> Option<Duration> {
    None
}
