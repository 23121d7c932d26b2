//! What was handed out, accepted, called and ended, as the workers tell it over a socket.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Notify,
    time::timeout,
};

/// What is to become of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is answered.
    Done,
    /// It is refused once, then answered.
    Refused,
    /// It is answered with 503 for ever.
    Failed,
    /// It is not due before it expires.
    Expired,
}

impl Fate {
    pub(super) const fn of(number: u32) -> Self {
        match number % 100 {
            1 => Self::Failed,
            2 => Self::Expired,
            3 | 4 => Self::Refused,
            _ => Self::Done,
        }
    }

    pub(super) const fn state(self) -> &'static str {
        match self {
            Self::Done | Self::Refused => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// How often the upstream is called if nothing goes wrong.
    const fn calls(self) -> u64 {
        match self {
            Self::Done => 1,
            Self::Refused => 2,
            Self::Failed => super::worker::ATTEMPTS as u64,
            Self::Expired => 0,
        }
    }
}

pub(super) struct Ledger {
    books: Mutex<Books>,
    news: Notify,
}

#[derive(Default)]
struct Books {
    to_submit: Vec<u32>,
    accepted: BTreeMap<u32, String>,
    calls: HashMap<u32, u64>,
    ended: HashSet<String>,
    ended_twice: Vec<String>,
    events: u64,
    /// A worker has seen that all have ended.
    is_over: bool,
}

impl Ledger {
    pub(super) fn new(requests: u32) -> Self {
        let books = Books { to_submit: (0..requests).rev().collect(), ..Books::default() };
        Self { books: Mutex::new(books), news: Notify::new() }
    }

    pub(super) fn listen(self: Arc<Self>, socket: &Path) {
        let listener = UnixListener::bind(socket).expect("a socket");
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.expect("a worker");
                let ledger = Arc::clone(&self);
                tokio::spawn(async move { ledger.serve(connection).await });
            }
        });
    }

    /// Answers a worker line by line, until it is killed.
    async fn serve(&self, connection: UnixStream) {
        let (reading, mut writing) = connection.into_split();
        let mut lines = BufReader::new(reading).lines();
        // What was handed out and not accepted is handed out again when the worker is gone.
        let mut handed_out = None;
        while let Ok(Some(line)) = lines.next_line().await {
            let reply = self.answer(&line, &mut handed_out);
            self.news.notify_waiters();
            if writing.write_all(format!("{reply}\n").as_bytes()).await.is_err() {
                break;
            }
        }
        if let Some(number) = handed_out {
            self.books().to_submit.push(number);
        }
    }

    fn answer(&self, line: &str, handed_out: &mut Option<u32>) -> String {
        let mut books = self.books();
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse::<u32>().expect("a number");
        match words[..] {
            ["next"] => {
                *handed_out = books.to_submit.pop();
                return handed_out.map_or("none".to_owned(), |number| number.to_string());
            }
            ["accepted", request, id] => {
                books.events += 1;
                *handed_out = None;
                let earlier = books.accepted.insert(number(request), id.to_owned());
                assert!(earlier.is_none_or(|earlier| earlier == id), "{request} has two ids");
            }
            ["call", request] => {
                books.events += 1;
                let calls = books.calls.entry(number(request)).or_default();
                *calls += 1;
                return match Fate::of(number(request)) {
                    Fate::Failed => "503",
                    Fate::Refused if *calls == 1 => "429",
                    _ => "200",
                }
                .to_owned();
            }
            ["ended", id] => {
                if !books.ended.insert(id.to_owned()) {
                    books.ended_twice.push(id.to_owned());
                }
            }
            ["left", "0"] => {
                let is_all =
                    books.to_submit.is_empty() && books.accepted.len() == super::REQUESTS as usize;
                books.is_over |= is_all;
            }
            ["left", _] => {}
            _ => panic!("a worker says {line:?}"),
        }
        "so be it".to_owned()
    }

    pub(super) fn events(&self) -> u64 {
        self.books().events
    }

    /// Waits for so many events. `false`: all requests have ended.
    pub(super) async fn until(&self, events: u64) -> bool {
        loop {
            let news = self.news.notified();
            {
                let books = self.books();
                if books.is_over {
                    return false;
                }
                if books.events >= events {
                    return true;
                }
            }
            let waited = timeout(Duration::from_secs(180), news).await;
            waited.expect("the workers do something");
        }
    }

    pub(super) fn accepted(&self) -> Vec<(u32, String)> {
        self.books().accepted.iter().map(|(number, id)| (*number, id.clone())).collect()
    }

    /// How many calls were made that would not have been without a crash.
    pub(super) fn calls_beyond(&self) -> u64 {
        let books = self.books();
        books
            .calls
            .iter()
            .map(|(number, calls)| calls.saturating_sub(Fate::of(*number).calls()))
            .sum()
    }

    pub(super) fn ended_twice(&self) -> Vec<String> {
        self.books().ended_twice.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no panic")
    }
}
