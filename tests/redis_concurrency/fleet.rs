//! Four processes, one of which is killed: never more slots than there are.
//!
//! Each counts what it holds on the server, by commands of its own that know nothing of slots: a field
//! for each process, and the sum of all at each change. Nobody but the test takes away the field of a
//! process that was killed.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{aio::MultiplexedConnection, cluster_async::ClusterConnection};
use tokio::task::JoinSet;
use tower_quota::{Key, backend::redis::Source, concurrency::SharedConcurrencyLimiter};

use crate::{
    servers::{Cluster, Flavor, PATIENCE, Standalone, patient},
    support::{cluster, once, server, slots, until, until_idle},
};

const SLOTS: u64 = 5;
const PROCESSES: usize = 4;
const TASKS: usize = 12;
/// No process stalls for so long that its loans end.
const LEASE: Duration = Duration::from_secs(15);
/// So many are held one after the other until it is enough.
const ENOUGH: u64 = 1_000;

/// Adds to the field of a process, and notes the largest sum of all fields that ever was.
const COUNT: &str = "
redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[1] .. ':begun', ARGV[1], math.max(0, tonumber(ARGV[2])))
local sum = 0
for _, held in ipairs(redis.call('HVALS', KEYS[1])) do sum = sum + held end
if sum > tonumber(redis.call('GET', KEYS[1] .. ':most') or '0') then
  redis.call('SET', KEYS[1] .. ':most', sum)
end
return sum";

const COUNTED: &str = "{counted}";
/// How many each process has begun to hold, in all.
pub(crate) const BEGUN: &str = "{counted}:begun";
/// The processes end when this is there.
pub(crate) const OVER: &str = "{counted}:over";

/// Counts on the server what is held.
#[derive(Clone)]
pub(crate) struct Counter(Connection);

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

impl Counter {
    pub(crate) async fn open(urls: &[String]) -> Self {
        Self(if let [url] = urls {
            let client = redis::Client::open(url.as_str()).expect("a URL");
            let connection = client.get_multiplexed_async_connection_with_config(&patient()).await;
            Connection::One(connection.expect("a connection"))
        } else {
            let client = redis::cluster::ClusterClientBuilder::new(urls.to_vec())
                .connection_timeout(PATIENCE)
                .response_timeout(PATIENCE)
                .build()
                .expect("URLs");
            Connection::Many(client.get_async_connection().await.expect("a connection"))
        })
    }

    async fn count(&mut self, change: i64) -> i64 {
        let script = redis::Script::new(COUNT);
        let mut call = script.key(COUNTED);
        call.arg(std::process::id()).arg(change);
        match &mut self.0 {
            Connection::One(connection) => call.invoke_async(connection).await,
            Connection::Many(connection) => call.invoke_async(connection).await,
        }
        .expect("it counts")
    }

    /// Becomes so when the test says that it is over.
    pub(crate) fn is_over(&self) -> Arc<AtomicBool> {
        let is_over = Arc::<AtomicBool>::default();
        let (mut counter, told) = (self.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            // For as long as the test takes.
            while counter.ask::<u64>(&["EXISTS", OVER]).await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            told.store(true, Ordering::Relaxed);
        });
        is_over
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        let mut packed = redis::cmd(command[0]);
        packed.arg(&command[1..]);
        match &mut self.0 {
            Connection::One(connection) => packed.query_async(connection).await,
            Connection::Many(connection) => packed.query_async(connection).await,
        }
        .expect("it answers")
    }
}

fn limiter(urls: &[String]) -> SharedConcurrencyLimiter {
    fn of<S: Source>(source: S) -> SharedConcurrencyLimiter {
        slots(source, SLOTS).lease(LEASE).build()
    }
    if let [url] = urls { of(server(url)) } else { of(cluster(urls.to_vec())) }
}

fn spawn(urls: &[String]) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["fleet::an_instance_of_the_fleet", "--exact", "--ignored", "--nocapture"])
        .env("QUOTA_SERVERS", urls.join(" "))
        .stdout(Stdio::null())
        .spawn()
        .expect("a process")
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_never_hold_more_than_there_is_and_a_killed_one_frees_its_slots() {
    let running = Standalone::start();
    fleet(vec![running.url()]).await;
    let renewals = running.calls_of("evalsha");
    assert!(renewals > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_same_on_a_cluster() {
    fleet(Cluster::start_with(Flavor::Redis, 3, 0).urls()).await;
}

async fn fleet(urls: Vec<String>) {
    let mut counter = Counter::open(&urls).await;
    let mut processes: Vec<Child> = (0..PROCESSES).map(|_| spawn(&urls)).collect();
    let victim = processes[0].id().to_string();
    // It has had some, holds some, and is killed: nobody gives them back.
    let holds = async || {
        let had: Option<i64> = counter.ask(&["HGET", BEGUN, &victim]).await;
        let held: Option<i64> = counter.ask(&["HGET", COUNTED, &victim]).await;
        (had? > 20 && held? > 0).then_some(())
    };
    once("that it holds some", holds).await;
    processes[0].kill().expect("it runs");
    processes[0].wait().expect("it ends");
    // Its loans have nearly two thirds left, at the least.
    let _removed: i64 = counter.ask(&["HDEL", COUNTED, &victim]).await;

    let had_some = async || {
        let begun: Vec<u64> = counter.ask(&["HVALS", BEGUN]).await;
        let most = held_at_most(&mut counter).await;
        let is_each = begun.len() == PROCESSES && begun.iter().all(|begun| *begun > 20);
        (is_each && begun.iter().sum::<u64>() > ENOUGH && most >= SLOTS).then_some(())
    };
    once("that each has some, and all are held", had_some).await;
    let _set: String = counter.ask(&["SET", OVER, "1"]).await;
    for process in &mut processes[1..] {
        assert!(tokio::task::block_in_place(|| process.wait()).expect("it ends").success());
    }
    assert_eq!(held_at_most(&mut counter).await, SLOTS, "more than there are");
    let left: Vec<i64> = counter.ask(&["HVALS", COUNTED]).await;
    assert_eq!(left.iter().sum::<i64>(), 0);

    // What was killed had slots and places in line. Within a loan nothing of them is left.
    let limiter = limiter(&urls);
    let all = tokio::time::timeout(PATIENCE + LEASE, limiter.acquire(&Key::GLOBAL, SLOTS)).await;
    drop(all.expect("in time").expect("all of them"));
    until_idle(&limiter, &Key::GLOBAL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of the tests above"]
async fn an_instance_of_the_fleet() {
    let urls = std::env::var("QUOTA_SERVERS").expect("it is started by the tests above");
    let urls: Vec<String> = urls.split(' ').map(str::to_owned).collect();
    let (limiter, counter) = (limiter(&urls), Counter::open(&urls).await);
    let is_over = counter.is_over();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (limiter, mut counter, is_over) =
            (limiter.clone(), counter.clone(), Arc::clone(&is_over));
        let mut random = u64::from(std::process::id()) << 32 | task as u64;
        tasks.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (draw, weight) = (random >> 33, 1 + (random >> 60) % 2);
                match draw % 8 {
                    // Not at any price.
                    0 => {
                        if let Ok(slot) = limiter.try_acquire(&Key::GLOBAL, weight).await {
                            hold(&mut counter, weight, draw % 5).await;
                            drop(slot);
                        }
                    }
                    // It gives up, at some point.
                    1 => {
                        let patience = Duration::from_micros(draw % 20_000);
                        let acquire = limiter.acquire(&Key::GLOBAL, weight);
                        drop(tokio::time::timeout(patience, acquire).await);
                    }
                    _ => {
                        let slot = limiter.acquire(&Key::GLOBAL, weight).await;
                        let slot = slot.expect("its turn comes");
                        hold(&mut counter, weight, draw % 5).await;
                        assert!(!slot.is_lost(), "a loan is renewed");
                        drop(slot);
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    // A process that ends gives back what it still can.
    until_idle_or_others(&limiter).await;
}

/// The most that were held at a time.
pub(crate) async fn held_at_most(counter: &mut Counter) -> u64 {
    counter.ask::<Option<u64>>(&["GET", &format!("{COUNTED}:most")]).await.unwrap_or(0)
}

/// Counted as long as it lasts, and not a moment longer.
pub(crate) async fn hold(counter: &mut Counter, weight: u64, millis: u64) {
    let weight = i64::try_from(weight).expect("a few");
    counter.count(weight).await;
    tokio::time::sleep(Duration::from_millis(millis)).await;
    counter.count(-weight).await;
}

/// Until what was dropped is on its way.
async fn until_idle_or_others(limiter: &SharedConcurrencyLimiter) {
    until("what was dropped", || limiter.held_here() == 0).await;
    let _answer = limiter.usage(&Key::GLOBAL).await;
}
