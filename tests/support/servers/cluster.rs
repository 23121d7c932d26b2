//! A cluster.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use redis::{
    Value,
    cluster::{ClusterClient, ClusterClientBuilder, NodeAddress},
};

use super::{Data, Flavor, PATIENCE, Proxy, Server, SlotMigration, until, wait::within};

/// A cluster: all slots covered, every node knowing every other.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

/// A proxy before each node of a cluster.
#[derive(Debug)]
pub struct ClusterProxies {
    /// One for each node, in the order of [`Cluster::nodes`].
    pub proxies: Vec<Proxy>,
    map: HashMap<NodeAddress, NodeAddress>,
}

const SLOTS: usize = 16384;
/// So long it takes at the most for nodes to meet, where none of them stalls.
const MEETING: Duration = Duration::from_secs(5);

impl Cluster {
    /// Starts so many masters and so many replicas for each of them. It takes 2 s: so long a node
    /// that has just started refuses to be a master.
    pub fn start(masters: usize, replicas: usize) -> Self {
        Self::start_with(Flavor::Redis, masters, replicas)
    }

    /// Starts one of that flavor. The masters come first in [`nodes`](Self::nodes).
    pub fn start_with(flavor: Flavor, masters: usize, replicas: usize) -> Self {
        let arguments = [
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes.conf",
            "--cluster-node-timeout",
            "1000",
            "--cluster-announce-ip",
            "127.0.0.1",
            "--cluster-replica-validity-factor",
            "0",
        ];
        let count = masters * (1 + replicas);
        let nodes: Vec<_> = (0..count).map(|_| Server::start(flavor, &arguments)).collect();
        let cluster = Self { nodes };

        for (number, node) in cluster.nodes.iter().enumerate() {
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < masters {
                let first = (SLOTS * number / masters).to_string();
                let last = (SLOTS * (number + 1) / masters - 1).to_string();
                node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
        }
        // One that stalls while it is met is forgotten, and has to be met again.
        until("all know each other", || {
            cluster.meet();
            within(MEETING, || cluster.nodes.iter().all(|node| node.knows(count)).then_some(()))
        });
        for (number, replica) in cluster.nodes.iter().enumerate().skip(masters) {
            let master = cluster.nodes[(number - masters) % masters].id();
            until("the replica knows its master", || {
                replica.try_ask::<()>(&["CLUSTER", "REPLICATE", &master]).ok()
            });
        }
        cluster.wait_until_whole();
        if replicas == 0 {
            // Where nobody could take over, a node that stalls has not failed.
            for node in &cluster.nodes {
                node.ask::<()>(&["CONFIG", "SET", "cluster-node-timeout", "600000"]);
            }
        }
        cluster
    }

    /// The one of three masters that all tests of this process share. Use a
    /// [`unique_prefix`](super::unique_prefix), and no faults.
    pub fn shared(flavor: Flavor) -> &'static Self {
        static SHARED: [OnceLock<Cluster>; 2] = [const { OnceLock::new() }; 2];
        SHARED[flavor as usize].get_or_init(|| Self::start_with(flavor, 3, 0))
    }

    /// Its nodes, those first that began as masters.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// Where a client can begin.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    /// A client.
    pub fn client(&self) -> ClusterClient {
        let client = ClusterClientBuilder::new(self.urls()).connection_timeout(PATIENCE);
        client.response_timeout(PATIENCE).build().expect("valid addresses")
    }

    /// The slot of a key.
    pub fn slot_of(&self, key: &str) -> u16 {
        self.ask_any(&["CLUSTER", "KEYSLOT", key])
    }

    /// The node that has a slot, as the others see it.
    pub fn owner(&self, slot: u16) -> &Server {
        let port = until("somebody knows who has the slot", || {
            let ranges: Vec<Vec<Value>> = self.ask_any(&["CLUSTER", "SLOTS"]);
            ranges.iter().find_map(|range| port_in(range, slot))
        });
        self.nodes.iter().find(|node| node.port() == port).expect("a node of ours")
    }

    /// Begins to move a slot to a node, and stops half-way: see [`SlotMigration`].
    pub fn begin_migration<'a>(&'a self, slot: u16, to: &'a Server) -> SlotMigration<'a> {
        SlotMigration::begin(&self.nodes, slot, self.owner(slot), to)
    }

    /// Moves a slot with its keys to a node.
    pub fn migrate_slot(&self, slot: u16, to: &Server) {
        let migration = self.begin_migration(slot, to);
        migration.move_keys();
        migration.finish();
    }

    /// Lets the nodes serve what slots are left when others are gone. Without it a cluster that has
    /// lost a master without a replica answers nothing at all.
    pub fn serve_what_is_left(&self) {
        for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
            node.ask::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
        }
    }

    /// Waits until every node that has not been killed sees all slots served, and every replica has
    /// what its master has.
    pub fn wait_until_whole(&self) {
        let known = self.nodes.len().to_string();
        for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
            until("the cluster is whole", || {
                let info: String = node.try_ask(&["CLUSTER", "INFO"]).ok()?;
                let has = |field: &str| info.lines().any(|line| line == field);
                let replication = node.try_info("replication")?;
                let link = replication.get("master_link_status").map_or("up", String::as_str);
                let whole = has("cluster_state:ok")
                    && has(&format!("cluster_known_nodes:{known}"))
                    && has("cluster_slots_ok:16384");
                (whole && link == "up").then_some(())
            });
        }
    }

    /// Kills a node and starts it again; without data it still is the same member.
    pub fn restart(&self, node: &Server, data: Data) {
        node.restart(data);
        self.wait_until_whole();
    }

    /// Puts a proxy before each node.
    pub fn proxies(&self) -> ClusterProxies {
        let proxies: Vec<_> = self.nodes.iter().map(|node| Proxy::start(node.addr())).collect();
        let address = |port| NodeAddress::new("127.0.0.1", port);
        let ports = self.nodes.iter().zip(&proxies);
        let map =
            ports.map(|(node, proxy)| (address(node.port()), address(proxy.port()))).collect();
        ClusterProxies { proxies, map }
    }

    /// Tells each node of those before it.
    fn meet(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[..number] {
                node.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]);
            }
        }
    }

    fn ask_any<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        until("a node answers", || {
            self.nodes
                .iter()
                .filter(|node| node.pid().is_some())
                .find_map(|node| node.try_ask(command).ok())
        })
    }
}

impl Server {
    /// Whether it knows so many nodes, itself among them, and has heard of all of them.
    fn knows(&self, count: usize) -> bool {
        let nodes: String = self.try_ask(&["CLUSTER", "NODES"]).unwrap_or_default();
        nodes.lines().count() == count && !nodes.contains("handshake")
    }

    /// Its name in a cluster.
    pub(super) fn id(&self) -> String {
        self.ask(&["CLUSTER", "MYID"])
    }
}

impl ClusterProxies {
    /// A builder of clients that reach every node through its proxy.
    pub fn client_builder(&self) -> ClusterClientBuilder {
        let urls: Vec<_> = self.proxies.iter().map(Proxy::url).collect();
        ClusterClientBuilder::new(urls).node_address_map(self.map.clone())
    }

    /// From the nodes' addresses to the proxies', as `node_address_map` wants it.
    pub fn map(&self) -> HashMap<NodeAddress, NodeAddress> {
        self.map.clone()
    }
}

/// The master's port, if the slot is in the range: first, last, master, replicas.
fn port_in(range: &[Value], slot: u16) -> Option<u16> {
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range else {
        return None;
    };
    if !(*first..=*last).contains(&i64::from(slot)) {
        return None;
    }
    let Some(Value::Int(port)) = master.get(1) else { return None };
    u16::try_from(*port).ok()
}
