//! A TCP proxy that disturbs what passes through it.

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::until;

/// A proxy before a server. It begins by letting everything pass, and works in a thread of its own,
/// so that a test's runtime, or its paused clock, does not matter. What is set holds for the
/// connections that are open and those to come, until something else is set.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Control {
    target: SocketAddr,
    fault: watch::Sender<Fault>,
    /// Counts up; each open connection ends when it does.
    cuts: watch::Sender<usize>,
    stop: watch::Sender<bool>,
    /// What the request contains whose reply is not to come back.
    cut_reply_to: Mutex<Option<Vec<u8>>>,
    accepted: AtomicUsize,
    /// How often something was lost.
    lost: watch::Sender<usize>,
    listening: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Delay { requests: Duration, replies: Duration },
    Hold,
    Lose,
    Refuse,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Requests,
    Replies,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `target`, and back.
    pub fn start(target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket that can");
        let addr = listener.local_addr().expect("it is bound");
        let control = Arc::new(Control {
            target,
            fault: watch::Sender::new(Fault::None),
            cuts: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            cut_reply_to: Mutex::new(None),
            accepted: AtomicUsize::new(0),
            lost: watch::Sender::new(0),
            listening: AtomicBool::new(true),
        });
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = Arc::clone(&control);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut stop = shared.stop.subscribe();
                tokio::select! {
                    () = listen(listener, addr, &shared) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
        });
        Self { addr, control, thread: Some(thread) }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Its address as redis-rs wants it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port())
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.control.accepted.load(Ordering::SeqCst)
    }

    /// Lets everything pass.
    pub fn pass(&self) {
        self.set(Fault::None);
        until("the proxy listens", || self.listens().then_some(()));
    }

    /// Makes each direction so much longer.
    pub fn delay(&self, requests: Duration, replies: Duration) {
        self.set(Fault::Delay { requests, replies });
    }

    /// Holds back everything, and delivers it when something else is set: a link that is down for
    /// some time, and TCP repeats what was lost.
    pub fn hold(&self) {
        self.set(Fault::Hold);
    }

    /// Loses everything silently. Connections stay open and new ones are accepted; those that have
    /// lost something end with the first byte that should pass again.
    pub fn black_hole(&self) {
        self.set(Fault::Lose);
    }

    /// Waits until something has been lost, since it was started.
    pub async fn has_lost_something(&self) {
        let mut lost = self.control.lost.subscribe();
        lost.wait_for(|lost| *lost > 0).await.expect("it runs");
    }

    /// Ends all connections now. New ones are not affected.
    pub fn cut(&self) {
        self.control.cuts.send_modify(|count| *count += 1);
    }

    /// Ends the connection on which the next request comes that contains `part` (`"EVALSHA"`, or
    /// nothing for any), *after* the server has executed it and *before* a byte of the reply has
    /// come back. Once.
    pub fn cut_reply_to(&self, part: &str) {
        *self.cut_reply() = Some(part.as_bytes().to_vec());
    }

    /// Whether such a request has come since.
    pub fn has_cut_reply(&self) -> bool {
        self.cut_reply().is_none()
    }

    /// Refuses new connections, as if nobody listened. Those that are open are not affected.
    pub fn refuse(&self) {
        self.set(Fault::Refuse);
        until("the proxy refuses", || (!self.listens()).then_some(()));
    }

    fn set(&self, fault: Fault) {
        self.control.fault.send_replace(fault);
    }

    fn listens(&self) -> bool {
        self.control.listening.load(Ordering::SeqCst)
    }

    fn cut_reply(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.control.cut_reply_to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Control {
    /// Whether the reply to this request must not come back. Yes only once.
    fn takes_reply_of(&self, request: &[u8]) -> bool {
        let mut wanted = self.cut_reply_to.lock().unwrap_or_else(PoisonError::into_inner);
        let found = wanted.as_ref().is_some_and(|part| {
            part.is_empty()
                || request.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
        });
        if found {
            *wanted = None;
        }
        found
    }
}

async fn listen(listener: std::net::TcpListener, addr: SocketAddr, control: &Arc<Control>) {
    let mut fault = control.fault.subscribe();
    let mut first = Some(TcpListener::from_std(listener).expect("a runtime with sockets"));
    loop {
        let listener = match first.take() {
            Some(listener) => listener,
            // The port is ours: somebody else would have to guess it.
            None => TcpListener::bind(addr).await.expect("the port that was ours"),
        };
        control.listening.store(true, Ordering::SeqCst);
        loop {
            tokio::select! {
                biased;
                _ = fault.wait_for(|fault| *fault == Fault::Refuse) => break,
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    control.accepted.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(connect(client, Arc::clone(control)));
                },
            }
        }
        drop(listener);
        control.listening.store(false, Ordering::SeqCst);
        let _ = fault.wait_for(|fault| *fault != Fault::Refuse).await;
    }
}

/// One connection, until one side ends it or a cut does.
async fn connect(client: TcpStream, control: Arc<Control>) {
    let mut cuts = control.cuts.subscribe();
    let Ok(server) = TcpStream::connect(control.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Once set, no reply may pass any more.
    let mute = AtomicBool::new(false);
    tokio::select! {
        () = pump(from_client, to_server, Direction::Requests, &mute, &control) => {}
        () = pump(from_server, to_client, Direction::Replies, &mute, &control) => {}
        _ = cuts.changed() => {}
    }
}

/// One direction. It returns when the connection has to end.
async fn pump(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    direction: Direction,
    mute: &AtomicBool,
    control: &Control,
) {
    // What has been read waits here until it is due. A chunk that is late does not delay the reading
    // of the next, so that a delay makes the way longer and not narrower.
    let (queue, due) = mpsc::unbounded_channel();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        let mut lossy = false;
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let chunk = &buffer[..length];
            let fault = *control.fault.borrow();
            if fault == Fault::Lose {
                lossy = true;
                control.lost.send_modify(|lost| *lost += 1);
                continue;
            }
            if lossy {
                break;
            }
            if direction == Direction::Replies && mute.load(Ordering::SeqCst) {
                continue;
            }
            let last = direction == Direction::Requests && control.takes_reply_of(chunk);
            if last {
                mute.store(true, Ordering::SeqCst);
            }
            let delay = match (fault, direction) {
                (Fault::Delay { requests, .. }, Direction::Requests) => requests,
                (Fault::Delay { replies, .. }, Direction::Replies) => replies,
                _ => Duration::ZERO,
            };
            let chunk = Chunk { at: Instant::now() + delay, bytes: chunk.to_vec(), last };
            if queue.send(chunk).is_err() {
                break;
            }
        }
    };
    tokio::join!(reading, write(due, to, mute, direction, control));
}

struct Chunk {
    at: Instant,
    bytes: Vec<u8>,
    /// After this the server is told that nothing more comes. It executes what it has been sent
    /// and then ends the connection, so that its end proves the execution.
    last: bool,
}

async fn write(
    mut due: mpsc::UnboundedReceiver<Chunk>,
    mut to: OwnedWriteHalf,
    mute: &AtomicBool,
    direction: Direction,
    control: &Control,
) {
    let mut fault = control.fault.subscribe();
    while let Some(Chunk { at, bytes, last }) = due.recv().await {
        sleep_until(at).await;
        let _ = fault.wait_for(|fault| *fault != Fault::Hold).await;
        if direction == Direction::Replies && mute.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        if last {
            let _ = to.shutdown().await;
            // The other direction ends the connection.
            pending::<()>().await;
        }
    }
}
