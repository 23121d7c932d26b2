//! Accepts connections, as many as there may be, and lets them end well.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{config::Server, numbers::Connections, patient::Patient};

/// A door: who is let in, by which bounds, and what it counts.
pub(crate) struct Door {
    pub(crate) app: Router,
    /// What those find who are one too many.
    pub(crate) full: Router,
    pub(crate) server: Server,
    pub(crate) connections: Arc<Connections>,
}

impl Door {
    /// Serves until `stop` changes, then takes no more and lets those who are there finish. It is over
    /// when nothing of them is left: who has not finished by then is cut off.
    pub(crate) async fn serve(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(self.server.max_connections.get()));
        // Those who are told that there is no room, and beyond them nobody: they wait to be accepted.
        let spare = Arc::new(Semaphore::new(SPARE));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let spare = Arc::clone(&spare).acquire_owned().await;
                (listener.accept().await, spare)
            };
            let (accepted, spare) = tokio::select! {
                accepted = accepted => accepted,
                Some(_) = connections.join_next() => continue,
                _ = stop.changed() => break,
            };
            // Too many open files, mostly: those that are there go on, and end.
            let (Ok((stream, _)), Ok(spare)) = (accepted, spare) else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => {
                    let connection = self.connection(stream, stop.clone());
                    let counted = Connections::one(&self.connections);
                    connections.spawn(with(slot, async move {
                        connection.await;
                        drop(counted);
                    }));
                }
                Err(_) => {
                    self.connections.turn_away();
                    connections.spawn(with(spare, self.turn_away(stream)));
                }
            }
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(self.server.drain, all).await.is_err() {
            connections.shutdown().await;
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        mut stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let Server { read_timeout, write_timeout, least_rate, .. } = self.server;
        let stream = TokioIo::new(Patient::new(stream, write_timeout, least_rate));
        let app = TowerToHyperService::new(self.app.clone());
        async move {
            let connection = http(read_timeout).serve_connection(stream, app);
            let mut connection = pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stop.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }

    /// One answer, soon.
    fn turn_away(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + use<> {
        let full = TowerToHyperService::new(self.full.clone());
        async move {
            let mut http = http(TURNED_AWAY);
            http.keep_alive(false);
            let _ = timeout(TURNED_AWAY, http.serve_connection(TokioIo::new(stream), full)).await;
        }
    }
}

fn http(read_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Who sends the head of a request byte by byte holds a connection no longer than this.
    http.timer(TokioTimer::new()).header_read_timeout(read_timeout).max_buf_size(LARGEST_HEAD);
    http
}

/// A connection, and its permit to be there.
async fn with(permit: OwnedSemaphorePermit, connection: impl Future<Output = ()>) {
    connection.await;
    drop(permit);
}

/// So many at a time are told that there is no room,
const SPARE: usize = 64;
/// each within this time.
const TURNED_AWAY: Duration = Duration::from_secs(2);
const LARGEST_HEAD: usize = 64 << 10;
