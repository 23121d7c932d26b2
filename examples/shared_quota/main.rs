//! Three server processes share one quota by a Redis server, and admit exactly its limit.
//!
//! `cargo run --features redis --example shared_quota`
//!
//! It takes the server at `REDIS_URL`, or starts a `redis-server` of its own for as long as it runs.

#![expect(clippy::print_stdout, reason = "it shows what it does")]

mod server;
mod store;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What all instances together admit.
const LIMIT: u64 = 300;
const INSTANCES: usize = 3;
/// Requests to each.
const REQUESTS: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [url, mode, run] = arguments.as_slice() {
        return server::serve(url, mode == "leased", run).await;
    }

    let store = store::Store::find_or_start().await?;
    println!("state in {}\n", store.describe());
    for mode in ["each", "leased"] {
        println!(
            "{}",
            if mode == "each" {
                "one call of a script for each batch of decisions:"
            } else {
                "leased: blocks of quota, spent in the process within twenty seconds:"
            }
        );
        let instances = Instances::start(&store.url, mode)?;
        let admitted = instances.ask().await?;
        for (instance, admitted) in admitted.iter().enumerate() {
            println!("  process {instance}: {admitted:3} of {REQUESTS} admitted");
        }
        let total: u64 = admitted.iter().sum();
        println!(
            "  together:  {total} of {} admitted; the limit is {LIMIT}\n",
            INSTANCES * REQUESTS
        );
        assert!(total <= LIMIT, "the limit was passed");
        if mode == "each" {
            assert_eq!(total, LIMIT, "something was lost");
        }
    }
    Ok(())
}

/// Server processes, which end with this value.
struct Instances {
    children: Vec<Child>,
    addresses: Vec<String>,
}

impl Instances {
    fn start(url: &str, mode: &str) -> Result<Self, Error> {
        let mut instances = Self { children: Vec::new(), addresses: Vec::new() };
        for _ in 0..INSTANCES {
            let mut child = Command::new(std::env::current_exe()?)
                .args([url, mode, &format!("run-{}", std::process::id())])
                .stdout(Stdio::piped())
                .spawn()?;
            let output = child.stdout.take().ok_or("a child without output")?;
            instances.children.push(child);
            // The first line is its address.
            let mut address = String::new();
            BufReader::new(output).read_line(&mut address)?;
            instances.addresses.push(address.trim().to_owned());
        }
        Ok(instances)
    }

    /// Sends all requests at once, and counts for each instance what it admits.
    async fn ask(&self) -> Result<Vec<u64>, Error> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
        let mut counts = Vec::new();
        let mut asked = Vec::new();
        for address in &self.addresses {
            let all = (0..REQUESTS).map(|_| {
                let request = client.get(format!("http://{address}/"));
                tokio::spawn(async move { request.send().await.map(|answer| answer.status()) })
            });
            asked.push(all.collect::<Vec<_>>());
        }
        for of_instance in asked {
            let mut admitted = 0;
            for answer in of_instance {
                admitted += u64::from(answer.await??.is_success());
            }
            counts.push(admitted);
        }
        Ok(counts)
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}
