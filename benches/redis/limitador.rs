//! The commands that limitador sends for a decision.
//!
//! Its crate is not here: 0.14.0 does not compile with its Redis storage alone (`bin` is missing in
//! `storage/keys.rs`); with the rest it would bring RocksDB, OpenSSL, another redis-rs and sixty
//! crates more into the lock file. What its `AsyncRedisStorage` (0.14.0, Apache-2.0) sends in `check_and_update` is two
//! calls, one after the other: one that reads the counter, and one that adds to it. Two callers can
//! both read before either adds, so it may admit more than the limit; its authors say so.

use redis::{Script, aio::ConnectionManager};

/// `VALUES_AND_TTLS`.
const READ: &str = "
    local res = {}
    for _, key in ipairs(KEYS) do
        table.insert(res, redis.call('get', key))
        table.insert(res, redis.call('pttl', key))
    end
    return res
";

/// `SCRIPT_UPDATE_COUNTER`.
const ADD: &str = "
    local c = redis.call('incrby', KEYS[1], ARGV[2])
    if c == tonumber(ARGV[2]) then
      redis.call('expire', KEYS[1], ARGV[1], 'NX')
      redis.call('sadd', KEYS[2], KEYS[1])
    end
    return c";

/// Nobody uses it up.
const LIMIT: i64 = 1_000_000_000_000;

#[derive(Clone)]
pub(crate) struct Limitador {
    connection: ConnectionManager,
    read: Script,
    add: Script,
}

impl Limitador {
    pub(crate) async fn connect(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = client.get_connection_manager().await.expect("a connection");
        let (read, add) = (Script::new(READ), Script::new(ADD));
        for script in [&read, &add] {
            let _: String = script.prepare_invoke().load_async(&mut connection).await.expect("OK");
        }
        Self { connection, read, add }
    }

    pub(crate) async fn decide(mut self, key: u64) {
        let counter = format!(
            "namespace:{{bench}},counter:{{\"limit\":{{\"namespace\":\"bench\",\"seconds\":3600,\
             \"variables\":[\"user\"]}},\"set_variables\":{{\"user\":\"{key}\"}}}}"
        );
        let read: Vec<Option<i64>> =
            self.read.key(&counter).invoke_async(&mut self.connection).await.expect("it answers");
        let is_within = read.first().copied().flatten().unwrap_or(0) < LIMIT;
        assert!(is_within, "nobody uses it up");
        let _: i64 = self
            .add
            .key(&counter)
            .key("namespace:{bench},counters_of_limit:{\"namespace\":\"bench\",\"seconds\":3600}")
            .arg(3_600)
            .arg(1)
            .invoke_async(&mut self.connection)
            .await
            .expect("it answers");
    }
}
