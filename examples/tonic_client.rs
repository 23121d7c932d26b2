//! A tonic channel whose calls wait their turn, and fail with an error of their own if it comes too
//! late.
//!
//! ```sh
//! cargo run --features grpc --example tonic_client
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{error::Error, time::Duration};

use tokio::time::Instant;
use tonic::transport::{Endpoint, Server, server::TcpIncoming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{BoxError, ServiceBuilder};
use tower_quota::{Quota, Rejection, TokenBucketLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let url = format!("http://{}", incoming.local_addr()?);
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));

    // Ten a second, and nobody waits for longer than a fifth of one.
    let limit = TokenBucketLayer::new(Quota::per_second(10)).burst(1);
    let channel = ServiceBuilder::new()
        .layer(limit.wait(Duration::from_millis(250)))
        .map_err(BoxError::from)
        .service(Endpoint::new(url)?.connect().await?);
    let client = HealthClient::new(channel);

    let begun = Instant::now();
    let calls = (0..5).map(|_| {
        let mut client = client.clone();
        async move { client.check(HealthCheckRequest::default()).await }
    });
    let (mut answered, mut refused) = (0, 0);
    for answer in futures::future::join_all(calls).await {
        match answer {
            Ok(answer) => {
                answered += 1;
                println!("answered: {:?}", answer.into_inner().status());
            }
            // tonic hands errors of its transport on as the source of the status.
            Err(status) => match Rejection::of(&status) {
                Some(rejection) => {
                    refused += 1;
                    println!("not sent: {rejection}");
                }
                None => return Err(status.into()),
            },
        }
    }
    println!("after {} ms", begun.elapsed().as_millis());
    // At once, after 100 ms and after 200 ms; the next turns would come too late. Where this machine takes its time one
    // more may go, or the third: a turn that is taken late puts off the next, and the bucket holds no more than one.
    assert!(answered >= 2 && answered + refused == 5);
    Ok(())
}
