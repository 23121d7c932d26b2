//! Callers that keep their connections and have several requests under way on each.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

/// The connections of all callers.
pub(crate) const CONNECTIONS: usize = 16;
/// The requests that are under way on each.
const UNDER_WAY: usize = 4;

pub(crate) struct Callers {
    connections: Vec<Connection>,
    last_status: u16,
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Callers {
    pub(crate) fn connect(to: &SocketAddr) -> Self {
        let connect = |_| {
            let stream = TcpStream::connect(to).expect("the server listens");
            stream.set_nodelay(true).expect("it is a socket");
            Connection { stream, read: Vec::with_capacity(1 << 16) }
        };
        Self { connections: (0..CONNECTIONS).map(connect).collect(), last_status: 0 }
    }

    /// Sends on all connections, then waits for all answers. How many that were.
    pub(crate) fn call(&mut self) -> usize {
        const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

        let requests = REQUEST.repeat(UNDER_WAY);
        for connection in &mut self.connections {
            connection.stream.write_all(&requests).expect("the server reads");
        }
        for connection in &mut self.connections {
            self.last_status = connection.wait_for_answers();
        }
        CONNECTIONS * UNDER_WAY
    }

    /// The status of the answer that came last.
    pub(crate) const fn last_status(&self) -> u16 {
        self.last_status
    }
}

impl Connection {
    /// The status of the last answer.
    fn wait_for_answers(&mut self) -> u16 {
        let (mut begin, mut status) = (0, 0);
        self.read.clear();
        for _ in 0..UNDER_WAY {
            let (answered, length) = loop {
                if let Some(answer) = parse(&self.read[begin..]) {
                    break answer;
                }
                let mut chunk = [0; 8_192];
                let count = self.stream.read(&mut chunk).expect("the server writes");
                assert!(count > 0, "the server closed a connection");
                self.read.extend_from_slice(&chunk[..count]);
            };
            (begin, status) = (begin + length, answered);
        }
        status
    }
}

/// The status and the length of an answer, once all of it is here.
fn parse(bytes: &[u8]) -> Option<(u16, usize)> {
    const LENGTH: &[u8] = b"\r\ncontent-length: ";

    let head = find(bytes, b"\r\n\r\n")?;
    let length = find(&bytes[..head], LENGTH).expect("every answer tells its length");
    let body = number(&bytes[length + LENGTH.len()..]);
    let status = number(&bytes[b"HTTP/1.1 ".len()..]);
    let whole = head + 4 + body;
    (bytes.len() >= whole).then_some((status as u16, whole))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn number(bytes: &[u8]) -> usize {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
