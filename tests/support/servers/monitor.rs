//! What a server has been told, word by word.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use super::{Server, unique_prefix, until};

/// Reads `MONITOR` until it is dropped.
#[derive(Debug)]
pub struct Monitor<'a> {
    server: &'a Server,
    stream: TcpStream,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl<'a> Monitor<'a> {
    pub(super) fn start(server: &'a Server) -> Self {
        let mut stream = TcpStream::connect(server.addr()).expect("a server that listens");
        stream.write_all(b"MONITOR\r\n").expect("a server that reads");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let monitor = Self {
            server,
            stream: stream.try_clone().expect("a second handle"),
            lines: Arc::clone(&lines),
            reader: Some(thread::spawn(move || read(stream, &lines))),
        };
        until("MONITOR is accepted", || (!monitor.seen().is_empty()).then_some(()));
        monitor
    }

    /// Every command that the server has executed by now, as it writes it: a time, the database
    /// and the client (or `lua`), and the arguments in quotes, with what is not printable escaped.
    pub fn lines(&self) -> Vec<String> {
        // What was executed before the marker stands above it.
        let marker = unique_prefix();
        let _: String = self.server.ask(&["ECHO", &marker]);
        until("the monitor has caught up", || {
            let seen = self.seen();
            let end = seen.iter().position(|line| line.contains(&marker))?;
            Some(seen[1..end].to_vec())
        })
    }

    fn seen(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(stream: TcpStream, lines: &Mutex<Vec<String>>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}
