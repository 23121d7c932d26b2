//! Processes that begin together, however long each takes to start.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[expect(clippy::disallowed_methods, reason = "processes have only the wall clock in common")]
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

/// Waits until so many processes have called this with the same server, and says when that was: to all of them
/// the same, in whole milliseconds.
pub(crate) fn begin_together(url: &str, processes: usize) -> Duration {
    let client = redis::Client::open(url).expect("a URL");
    let mut server = client.get_connection().expect("a connection");
    let there: usize = redis::cmd("INCR").arg(THERE).query(&mut server).expect("it counts");
    if there == processes {
        let now = u64::try_from(wall_clock().as_millis()).expect("this century");
        redis::cmd("SET").arg(BEGUN).arg(now).exec(&mut server).expect("it is set");
    }
    loop {
        let begun: Option<u64> =
            redis::cmd("GET").arg(BEGUN).query(&mut server).expect("it answers");
        if let Some(begun) = begun {
            return Duration::from_millis(begun);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this machine is said to do nothing else (`QUIET_MACHINE=1`), so that how well something goes can be
/// judged. Otherwise tests judge what no stall and no load may change.
#[allow(dead_code, reason = "not all who begin together are judged")]
pub(crate) fn is_quiet() -> bool {
    std::env::var_os("QUIET_MACHINE").is_some()
}

const THERE: &str = "{together}:there";
/// What [`begin_together`] says.
pub(crate) const BEGUN: &str = "{together}:begun";
