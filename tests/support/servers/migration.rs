//! A slot on its way from one node of a cluster to another.

use super::Server;

/// A slot that is being moved. While it is, the old owner answers for the keys that it still has, and
/// `ASK` for the others; the new owner answers only to who says `ASKING`.
#[derive(Debug)]
#[must_use = "half-way is where it stays until it is finished"]
pub struct SlotMigration<'a> {
    nodes: &'a [Server],
    slot: String,
    from: &'a Server,
    to: &'a Server,
}

impl<'a> SlotMigration<'a> {
    pub(super) fn begin(nodes: &'a [Server], slot: u16, from: &'a Server, to: &'a Server) -> Self {
        let slot = slot.to_string();
        to.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id()]);
        from.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id()]);
        Self { nodes, slot, from, to }
    }

    /// Moves the keys that the slot has now.
    pub fn move_keys(&self) {
        let port = self.to.port().to_string();
        loop {
            let keys: Vec<String> = self.from.ask(&["CLUSTER", "GETKEYSINSLOT", &self.slot, "100"]);
            if keys.is_empty() {
                return;
            }
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            command.extend(keys.iter().map(String::as_str));
            self.from.ask::<()>(&command);
        }
    }

    /// Gives the slot to its new owner and tells everybody.
    pub fn finish(self) {
        let owner = self.to.id();
        let others = self.nodes.iter().filter(|node| node.port() != self.to.port());
        for node in [self.to].into_iter().chain(others) {
            // A replica learns it from its master.
            let told = node.try_ask::<()>(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &owner]);
            let replica = node.info("replication").get("role").is_some_and(|role| role == "slave");
            assert!(told.is_ok() || replica, "{told:?}");
        }
    }
}
