//! One server: a child process on a port of its own, with a folder of its own.

use std::{
    env, fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    Flavor,
    wait::{PATIENCE, until, within},
};

/// One `redis-server` or `valkey-server`. It is killed when the value is dropped, and when this
/// process ends without dropping it, however it ends.
#[derive(Debug)]
pub struct Server {
    flavor: Flavor,
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
}

/// What a server that starts again knows of its former life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Data {
    /// Everything.
    Kept,
    /// Nothing.
    Lost,
}

/// Becomes the server, after it has left somebody behind who waits for the standard input to end.
/// A line on it means that all is well; an end without a line that whoever wrote it is dead, so
/// the server has to go, and its folder.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
( read -r line <&3 || { kill -9 $$; rm -rf "$0"; } ) >/dev/null 2>&1 &
exec "$@" 3<&-
"#;

impl Server {
    /// Starts one that keeps nothing on disk, with `arguments` behind the usual ones.
    pub fn start(flavor: Flavor, arguments: &[&str]) -> Self {
        let usual = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
        let local = ["--enable-debug-command", "local"];
        let arguments = usual.iter().chain(&local).chain(arguments);
        Self::launch(flavor, None, arguments.map(ToString::to_string).collect())
    }

    /// Starts a sentinel with these lines of settings.
    pub fn start_sentinel(flavor: Flavor, settings: &str) -> Self {
        Self::launch(flavor, Some(settings), vec!["--sentinel".to_owned()])
    }

    fn launch(flavor: Flavor, settings: Option<&str>, mut arguments: Vec<String>) -> Self {
        let folder = new_folder();
        if let Some(settings) = settings {
            let file = folder.join("server.conf");
            fs::write(&file, settings).expect("its settings can be written");
            arguments.insert(0, file.display().to_string());
        }
        let mut server = Self { flavor, port: 0, folder, arguments, child: Mutex::new(None) };
        // Between finding a port and using it somebody else can take it: then another one.
        let mut attempts = 0;
        loop {
            server.port = free_port();
            match server.run() {
                Ok(()) => return server,
                Err(why) if attempts == 20 => panic!("{} does not start: {why}", flavor.name()),
                Err(_) => attempts += 1,
            }
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its address as redis-rs wants it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Which server it is.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The id of its process, unless it has been killed.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Kills it, as if the power had failed.
    pub fn kill(&self) {
        if let Some(child) = self.child().take() {
            end(child);
        }
    }

    /// Ends it if it still runs, and starts it again on the same port.
    pub fn restart(&self, data: Data) {
        if data == Data::Kept {
            let _: String = self.ask(&["SAVE"]);
        }
        self.kill();
        if data == Data::Lost {
            let _ = fs::remove_file(self.folder.join("dump.rdb"));
        }
        // Something of the former life can still hold the port.
        until("the port is free again", || self.run().ok());
    }

    /// Freezes it: it keeps its connections and answers nothing, as behind a dead link or in a
    /// stopped virtual machine.
    pub fn stop(&self) {
        self.signal("STOP");
        until("it is stopped", || self.state().is_none_or(|state| state == 'T').then_some(()));
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.signal("CONT");
        until("it goes on", || self.state().is_none_or(|state| state != 'T').then_some(()));
    }

    /// Starts the process, and waits until it is that which answers on the port.
    fn run(&self) -> Result<(), String> {
        let log = fs::File::create(self.folder.join("log")).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        // The settings' file, if there is one, goes first.
        let mut child = Command::new("sh")
            .args(["-c", WATCHED])
            .arg(&self.folder)
            .arg(self.flavor.program())
            .args(&self.arguments)
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1"])
            .arg("--dir")
            .arg(&self.folder)
            // Of a group of its own, so that an interrupt from the keyboard ends the watcher's
            // wait, not the watcher.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| error.to_string())?;

        let id = child.id();
        let up = within(PATIENCE, || {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(Err(status.to_string()));
            }
            let info: String = self.try_ask(&["INFO", "server"]).ok()?;
            let own = info.lines().any(|line| line == format!("process_id:{id}"));
            let _: String = self.try_ask(&["PING"]).ok()?;
            own.then_some(Ok(()))
        });
        match up {
            Some(Ok(())) => {
                *self.child() = Some(child);
                Ok(())
            }
            failed => {
                end(child);
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                Err(format!("{failed:?}, its log: {log}"))
            }
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.pid().expect("a server that has not been killed");
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal} {id} has failed");
    }

    /// Its state as Linux tells it. Elsewhere a signal's effect is not waited for.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// A test that panics does not take the server from the others.
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sends the watcher home and kills the server.
fn end(mut child: Child) {
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(b"\n");
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("tower-quota-{}-{number}", process::id()));
    // What a process of the same id has left behind is of no use.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the server");
    folder
}

/// A port that nobody listens on, nor on the one 10,000 above, where a cluster's node wants its bus.
/// Both are below those that the system gives to outgoing connections (from 32768 on Linux), so
/// that none of the many connections of a test takes them.
pub fn free_port() -> u16 {
    const FIRST: u32 = 11_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time begin at different places.
    let start = process::id().wrapping_mul(7919);
    until("two free ports", || {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + number).expect("at most 21,000");
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        (free(port) && free(port + 10_000)).then_some(port)
    })
}
