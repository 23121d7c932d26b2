//! Answers that no server of ours gives: something else listens there, or has gone mad.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use futures::future::join_all;
use tokio::time::Instant;
use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{FixedWindow, LeakyBucket, SlidingCounter, SlidingWindow, TokenBucket},
    backend::redis::{RedisBuilder, Scripted, Server},
};

use crate::servers::{PATIENCE, Standalone};

/// Passes everything on to a server and back, but for the next answer to a script.
struct Liar {
    addr: SocketAddr,
    lie: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Liar {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let lie = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&lie);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect(server).expect("the server listens");
                pass_on(&client.expect("a client"), &server, &shared);
            }
        });
        Self { addr, lie }
    }

    fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    /// Answers the next script with this.
    fn answer(&self, lie: &[u8]) {
        *self.lie.lock().unwrap_or_else(PoisonError::into_inner) = Some(lie.to_vec());
    }
}

fn pass_on(client: &TcpStream, server: &TcpStream, lie: &Arc<Mutex<Option<Vec<u8>>>>) {
    let told = Arc::new(Mutex::new(None));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a handle");
    let (mut from, mut to) = (clone(client), clone(server));
    let (lie, next) = (Arc::clone(lie), Arc::clone(&told));
    thread::spawn(move || {
        pump(&mut from, &mut to, |request| {
            if request.windows(7).any(|part| part == b"EVALSHA") {
                let lie = lie.lock().unwrap_or_else(PoisonError::into_inner).take();
                *next.lock().unwrap_or_else(PoisonError::into_inner) = lie;
            }
            None
        });
    });
    let (mut from, mut to) = (clone(server), clone(client));
    thread::spawn(move || {
        pump(&mut from, &mut to, |_| told.lock().unwrap_or_else(PoisonError::into_inner).take());
    });
}

/// Passes on what comes, or what `instead` has in its place.
fn pump(
    from: &mut TcpStream,
    to: &mut TcpStream,
    mut instead: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let chunk = &buffer[..length];
        if to.write_all(instead(chunk).as_deref().unwrap_or(chunk)).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn doubles(numbers: &[f64]) -> Vec<u8> {
    bulk(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

/// A whole answer of another kind, or of another length, than was asked for.
fn wrong_forms() -> Vec<Vec<u8>> {
    let long = [b"*100000\r\n".as_slice(), &b":1\r\n".repeat(100_000)].concat();
    let nested = [b"*1\r\n".repeat(90).as_slice(), b":1\r\n"].concat();
    let too_nested = [b"*1\r\n".repeat(10_000).as_slice(), b":1\r\n"].concat();
    vec![
        b"+OK\r\n".to_vec(),
        b":1\r\n".to_vec(),
        b":99999999999999999999999999\r\n".to_vec(),
        b"$-1\r\n".to_vec(),
        b"*-1\r\n".to_vec(),
        b"*0\r\n".to_vec(),
        long,
        nested,
        too_nested,
        // Of the protocol's third version, of which nobody has been asked.
        b"_\r\n".to_vec(),
        b"#t\r\n".to_vec(),
        b",nan\r\n".to_vec(),
        b"(3492890328409238509324850943850943825024385\r\n".to_vec(),
        b"=15\r\ntxt:Some string\r\n".to_vec(),
        b"%1\r\n+k\r\n:1\r\n".to_vec(),
        b"~1\r\n:1\r\n".to_vec(),
        b"|1\r\n+k\r\n+v\r\n:1\r\n".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        bulk(b""),
        bulk(b"short"),
        // Eight mebibytes, and what begins as a good answer does.
        bulk(&vec![0; 8 << 20]),
        doubles(&[1e15; 100_000]),
        doubles(&[1e15, 1.0, 1e15, 0.0, 1.0, 7.0]),
    ]
}

/// Numbers that none of our states has, or none has at a time.
fn wrong_numbers() -> Vec<Vec<u8>> {
    let most = 9_007_199_254_740_991.0;
    let strange =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, -7.0, 0.0, 1.0, 1e300, most, most + 1.0];
    let mut lies = Vec::new();
    for number in strange {
        lies.push(doubles(&[number; 5]));
        lies.push(doubles(&[number; 40]));
        for place in 0..5 {
            let mut numbers = [1e15, 1.0, 1e15, 0.0, 1.0];
            numbers[place] = number;
            lies.push(doubles(&numbers));
        }
    }
    lies
}

/// Behind `liar`, without a memory of refusals: what is lied about is not to be believed later.
fn limiter<A: Scripted>(
    liar: &Liar,
    algorithm: A,
) -> Limiter<A, tower_quota::backend::redis::Redis<A, Server>> {
    let source = Server::open(liar.url()).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("absurd"))
        .timeout(PATIENCE)
        .in_flight(1)
        .remember_refusals(Duration::ZERO)
        .build();
    Limiter::new(algorithm, redis)
}

/// Lies to a decision alone and to some that travel together, and asks once more each time.
async fn survives<A: Scripted>(server: &Standalone, algorithm: A, lies: &[Vec<u8>], is_form: bool) {
    server.flush_all();
    let liar = Liar::before(server.addr());
    let limiter = limiter(&liar, algorithm);
    let key = Key::from("alice");
    let begun = Instant::now();
    for lie in lies {
        let shown = String::from_utf8_lossy(&lie[..lie.len().min(48)]);
        for together in [1, 5] {
            liar.answer(lie);
            let asking = (0..together).map(|_| limiter.decide(&key, Cost::ONE));
            for told in join_all(asking).await {
                match told {
                    // What looks like an answer is taken for one.
                    Ok(_) if !is_form || together > 1 => {}
                    Ok(decision) => panic!("{shown:?} is believed: {decision:?}"),
                    Err(error) => {
                        let kinds = [BackendErrorKind::Malformed, BackendErrorKind::TimedOut];
                        assert!(kinds.contains(&error.kind()), "{shown:?}: {error:?}");
                        let source = std::error::Error::source(&error).map(ToString::to_string);
                        let source = source.unwrap_or_default();
                        assert!(!source.contains("runtime is gone"), "{shown:?} is a panic");
                    }
                }
            }
            let next = limiter.decide(&key, Cost::ONE).await;
            assert!(next.is_ok(), "{shown:?} has a consequence: {next:?}");
        }
    }
    // A hundred times of it would be one time-out for each lie.
    assert!(begun.elapsed() < PATIENCE * lies.len() as u32 / 4, "it hangs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_form_is_an_error_of_its_call_alone() {
    let server = Standalone::start();
    let quota = Quota::per_day(1_000_000);
    survives(&server, TokenBucket::new(quota), &wrong_forms(), true).await;
    survives(&server, FixedWindow::new(quota), &wrong_forms(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_absurd_numbers_is_an_error_of_its_call_or_an_answer_and_no_more() {
    let server = Standalone::start();
    let (quota, lies) = (Quota::per_day(1_000_000), wrong_numbers());
    survives(&server, TokenBucket::new(quota), &lies, false).await;
    survives(&server, LeakyBucket::new(quota), &lies, false).await;
    survives(&server, FixedWindow::new(quota), &lies, false).await;
    survives(&server, SlidingWindow::new(quota), &lies, false).await;
    survives(&server, SlidingCounter::new(quota), &lies, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_promised_and_does_not_come_costs_the_time_out() {
    let server = Standalone::start();
    // The last is complete, and no answer: a message that nobody has asked for.
    let promises =
        ["$1000000000\r\n", "*1000000\r\n:1\r\n", "$10\r\nabc", ">2\r\n+message\r\n+x\r\n"];
    for promise in promises {
        let liar = Liar::before(server.addr());
        let source = Server::open(liar.url()).expect("a URL");
        let timeout = Duration::from_millis(300);
        let redis = RedisBuilder::new(source, PolicyName::from_static("promised")).timeout(timeout);
        let limiter = Limiter::new(TokenBucket::new(Quota::per_day(100)), redis.build());
        liar.answer(promise.as_bytes());
        let begun = Instant::now();
        let told = limiter.decide(&Key::GLOBAL, Cost::ONE).await;
        assert_eq!(told.expect_err("no answer").kind(), BackendErrorKind::TimedOut, "{promise:?}");
        assert!(begun.elapsed() < PATIENCE / 2, "{promise:?}");
    }
}
