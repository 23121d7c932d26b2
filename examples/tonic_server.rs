//! A tonic server behind a layer: its client sees `RESOURCE_EXHAUSTED`, and when to come back.
//!
//! ```sh
//! cargo run --features grpc --example tonic_server
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{error::Error, time::Duration};

use tonic::{
    Code,
    transport::{
        Endpoint, Server,
        server::{TcpConnectInfo, TcpIncoming},
    },
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use tower_quota::{
    Quota, TokenBucketLayer,
    http::{ClientAddr, TooManyRequests},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client_addr = ClientAddr::new().peer(|extensions| {
        let connection = extensions.get::<TcpConnectInfo>()?;
        Some(connection.remote_addr()?.ip())
    });
    // A body of tonic's own cannot be made of text, and a gRPC refusal needs none.
    let layer = TokenBucketLayer::new(Quota::per_minute(3))
        .key(client_addr)
        .answer(TooManyRequests::new().empty_body());

    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let url = format!("http://{}", incoming.local_addr()?);
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().layer(layer).add_service(health).serve_with_incoming(incoming));

    let mut client = HealthClient::new(Endpoint::new(url)?.connect().await?);
    for number in 1..=3 {
        let response = client.check(HealthCheckRequest::default()).await?.into_inner();
        println!("{number}: {:?}", response.status());
    }

    let Err(status) = client.check(HealthCheckRequest::default()).await else {
        return Err("the fourth request was let through".into());
    };
    let retry_info = status.get_details_retry_info().ok_or("no RetryInfo")?;
    let retry_delay = retry_info.retry_delay.ok_or("no delay")?;
    println!("4: {:?}, {}, retry after {retry_delay:?}", status.code(), status.message());
    assert_eq!(status.code(), Code::ResourceExhausted);
    // Three a minute: the next one comes twenty seconds after the first was taken.
    assert!(retry_delay > Duration::from_secs(15) && retry_delay <= Duration::from_secs(20));
    Ok(())
}
