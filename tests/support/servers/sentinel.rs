//! A master and its replica, watched by three sentinels.

use std::sync::OnceLock;

use super::{Flavor, Server, until};

/// A master, a replica, and three sentinels, two of whom decide.
#[derive(Debug)]
pub struct Sentinel {
    servers: [Server; 2],
    sentinels: Vec<Server>,
}

impl Sentinel {
    /// What the sentinels call the master.
    pub const SERVICE: &str = "quota";

    /// Starts all five. It takes 2 s: so often sentinels greet each other.
    pub fn start() -> Self {
        Self::start_with(Flavor::Redis)
    }

    /// Starts five of that flavor.
    pub fn start_with(flavor: Flavor) -> Self {
        let master = Server::start(flavor, &[]);
        let port = master.port().to_string();
        let replica = Server::start(flavor, &["--replicaof", "127.0.0.1", &port]);
        let service = Self::SERVICE;
        // A master that does not answer for half a second is held to be dead.
        let settings = format!(
            "protected-mode no\n\
             sentinel resolve-hostnames no\n\
             sentinel monitor {service} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {service} 500\n\
             sentinel failover-timeout {service} 3000\n\
             sentinel parallel-syncs {service} 1\n"
        );
        let sentinels: Vec<_> = (0..3).map(|_| Server::start_sentinel(flavor, &settings)).collect();
        for sentinel in &sentinels {
            // One that has stalled for two seconds takes its clock for wrong, and does nothing for half a minute.
            sentinel.ask::<()>(&["SENTINEL", "DEBUG", "tilt-trigger", "600000"]);
        }
        let all = Self { servers: [master, replica], sentinels };
        all.wait_until_whole();
        all
    }

    /// The one that all tests of this process share. Use a [`unique_prefix`](super::unique_prefix),
    /// and no faults.
    pub fn shared(flavor: Flavor) -> &'static Self {
        static SHARED: [OnceLock<Sentinel>; 2] = [const { OnceLock::new() }; 2];
        SHARED[flavor as usize].get_or_init(|| {
            let shared = Self::start_with(flavor);
            shared.nobody_takes_over_unasked();
            shared
        })
    }

    /// Lets a server that stalls be no reason for another to take over, where a test does not want
    /// that to happen but when it says so.
    pub fn nobody_takes_over_unasked(&self) {
        for sentinel in &self.sentinels {
            let command = ["SENTINEL", "SET", Self::SERVICE, "down-after-milliseconds", "600000"];
            sentinel.ask::<()>(&command);
        }
    }

    /// The two servers, that first that began as master.
    pub fn servers(&self) -> &[Server; 2] {
        &self.servers
    }

    /// The three sentinels.
    pub fn sentinels(&self) -> &[Server] {
        &self.sentinels
    }

    /// The sentinels' addresses, as redis-rs wants them.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::url).collect()
    }

    /// The master, if all sentinels that run agree on one.
    pub fn agreed_master(&self) -> Option<&Server> {
        let live = self.sentinels.iter().filter(|sentinel| sentinel.pid().is_some());
        let mut ports = live.map(|sentinel| {
            let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::SERVICE];
            sentinel.try_ask::<(String, u16)>(&command).ok().map(|(_, port)| port)
        });
        let port = ports.next()??;
        ports.all(|other| other == Some(port)).then_some(())?;
        self.servers.iter().find(|server| server.port() == port)
    }

    /// The master, when all sentinels agree on one.
    pub fn master(&self) -> &Server {
        until("the sentinels agree on a master", || self.agreed_master())
    }

    /// The server that is not the master.
    pub fn replica(&self) -> &Server {
        let master = self.master().port();
        let mut others = self.servers.iter().filter(|server| server.port() != master);
        others.next().expect("two servers")
    }

    /// Lets the replica take over, as an operator would, and waits until the sentinels say so. The
    /// old master goes on taking writes for some seconds, until it is told; what it takes is lost.
    pub fn failover(&self) {
        let old = self.master().port();
        // Refused while one is under way, and for some time after it.
        until("a failover is accepted", || {
            self.sentinels[0].try_ask::<()>(&["SENTINEL", "FAILOVER", Self::SERVICE]).ok()
        });
        self.wait_for_master_other_than(old);
    }

    /// Waits until the sentinels have another master than that on `port`, and it takes writes.
    pub fn wait_for_master_other_than(&self, port: u16) -> &Server {
        until("there is another master", || {
            let master = self.agreed_master().filter(|master| master.port() != port)?;
            (role(master)? == "master").then_some(master)
        })
    }

    /// Waits until everybody knows everybody, and the replica has what the master has.
    pub fn wait_until_whole(&self) {
        until("the sentinels know each other and the replica", || {
            let whole = self.sentinels.iter().all(|sentinel| {
                let quorum = sentinel.try_ask::<String>(&["SENTINEL", "CKQUORUM", Self::SERVICE]);
                let replicas =
                    sentinel.try_ask::<Vec<redis::Value>>(&["SENTINEL", "REPLICAS", Self::SERVICE]);
                quorum.is_ok_and(|answer| answer.starts_with("OK 3"))
                    && replicas.is_ok_and(|replicas| replicas.len() == 1)
            });
            whole.then_some(())
        });
        until("the replica follows the master", || {
            let replica = self.replica();
            let info = replica.try_info("replication")?;
            let up = info.get("master_link_status").is_some_and(|status| status == "up");
            (role(replica)? == "slave" && up).then_some(())
        });
    }
}

fn role(server: &Server) -> Option<String> {
    server.pid()?;
    server.try_info("replication")?.remove("role")
}
