//! What a test asks of a server, beside the client that it tests.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use redis::{Cmd, FromRedisValue, Parser, RedisResult};

use super::{Monitor, PATIENCE, Server};

impl Server {
    /// Sends one command and reads the answer.
    ///
    /// # Panics
    ///
    /// If the answer is an error or does not come within [`PATIENCE`].
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// As [`ask`](Self::ask), with the error for the caller.
    pub fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> RedisResult<T> {
        Ok(T::from_redis_value(self.say(&packed(command))?)?)
    }

    /// Sets a key to bytes that need not be text.
    #[track_caller]
    pub fn set(&self, name: &str, value: &[u8]) {
        let mut set = redis::cmd("SET");
        self.say(set.arg(name).arg(value)).expect("it is set");
    }

    /// Forgets all scripts.
    pub fn script_flush(&self) {
        self.ask(&["SCRIPT", "FLUSH", "SYNC"])
    }

    /// Forgets all keys.
    pub fn flush_all(&self) {
        self.ask(&["FLUSHALL", "SYNC"])
    }

    /// Keeps it from doing anything for that time. Returns at once.
    pub fn debug_sleep(&self, time: Duration) {
        self.send(&["DEBUG", "SLEEP", &format!("{:.3}", time.as_secs_f64())]);
    }

    /// Lets every client's commands wait for that time.
    pub fn client_pause(&self, time: Duration) {
        self.ask(&["CLIENT", "PAUSE", &time.as_millis().to_string(), "ALL"])
    }

    /// The same for what may write, as a planned failover does.
    pub fn pause_writes(&self, time: Duration) {
        self.ask(&["CLIENT", "PAUSE", &time.as_millis().to_string(), "WRITE"])
    }

    /// Ends a pause before its time.
    pub fn client_unpause(&self) {
        self.ask(&["CLIENT", "UNPAUSE"])
    }

    /// Bounds its memory; 1 makes it full at once, 0 takes the bound away.
    pub fn set_max_memory(&self, bytes: u64) {
        self.ask(&["CONFIG", "SET", "maxmemory", &bytes.to_string()])
    }

    /// Creates or changes a user: `ACL SETUSER name rules…`. The default user stays what it is, and
    /// is what these methods use.
    pub fn acl_set_user(&self, name: &str, rules: &str) {
        let command: Vec<_> =
            ["ACL", "SETUSER", name].into_iter().chain(rules.split(' ')).collect();
        self.ask(&command)
    }

    /// Its address with a user's name and password.
    pub fn url_of(&self, name: &str, password: &str) -> String {
        format!("redis://{name}:{password}@127.0.0.1:{}/", self.port())
    }

    /// Ends the connections of all clients.
    pub fn disconnect_clients(&self) {
        let _: u64 = self.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    }

    /// Collects every command that it executes from now on, those inside scripts too.
    pub fn monitor(&self) -> Monitor<'_> {
        Monitor::start(self)
    }

    /// The processor time that it has used, in user and kernel mode.
    pub fn used_cpu(&self) -> Duration {
        let info = self.info("cpu");
        let seconds = |field| info.get(field).and_then(|value| value.parse::<f64>().ok());
        let used = seconds("used_cpu_user").zip(seconds("used_cpu_sys"));
        used.map(|(user, kernel)| Duration::from_secs_f64(user + kernel)).expect("INFO tells it")
    }

    /// How often each command has been executed, those inside scripts too. Names are in lower case,
    /// subcommands behind a bar: `evalsha`, `script|load`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let info = self.info("commandstats");
        info.iter()
            .filter_map(|(field, value)| {
                let name = field.strip_prefix("cmdstat_")?;
                let calls = value.strip_prefix("calls=")?.split(',').next()?;
                Some((name.to_owned(), calls.parse().ok()?))
            })
            .collect()
    }

    /// How often one command has been executed.
    pub fn calls_of(&self, command: &str) -> u64 {
        self.calls().get(command).copied().unwrap_or(0)
    }

    /// The fields of one section of `INFO`.
    #[track_caller]
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        fields(&self.ask::<String>(&["INFO", section]))
    }

    /// The same of a server that may cut off those who ask, as it does when it changes its role.
    pub fn try_info(&self, section: &str) -> Option<BTreeMap<String, String>> {
        let info: String = self.try_ask(&["INFO", section]).ok()?;
        Some(fields(&info))
    }

    /// Sends one command and does not wait for the answer.
    fn send(&self, command: &[&str]) {
        let mut line = Line::to(self).expect("a server that listens");
        line.write(&packed(command)).expect("it is sent");
    }

    fn say(&self, command: &Cmd) -> RedisResult<redis::Value> {
        let mut line = Line::to(self)?;
        line.write(command)?;
        Parser::new().parse_value(line)?.extract_error()
    }
}

/// A connection on which nothing is said but what is asked for, so that nothing else is counted.
struct Line(TcpStream);

impl Line {
    fn to(server: &Server) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server.addr(), PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    fn write(&mut self, command: &Cmd) -> io::Result<()> {
        self.0.write_all(&command.get_packed_command())
    }
}

/// A process that was stopped, or whose container was frozen, finds its reading interrupted when it
/// goes on.
impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

fn fields(info: &str) -> BTreeMap<String, String> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(field, value)| (field.to_owned(), value.trim().to_owned()))
        .collect()
}

fn packed(command: &[&str]) -> Cmd {
    let mut packed = Cmd::new();
    for part in command {
        packed.arg(part);
    }
    packed
}
