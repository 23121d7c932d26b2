//! A central quota service: Envoy's rate limit service over gRPC, and plain HTTP with JSON.
//!
//! ```sh
//! # Starts one, asks it a few things, prints what it said, and ends.
//! cargo run --features full --example quota_server
//!
//! # Serves. `server.toml` explains each of its keys, `rules.toml` those of the rules.
//! cargo run --features full --example quota_server -- --config examples/quota_server/server.toml
//! ```

mod serve;
mod settings;
mod show;

use std::error::Error;

use self::settings::Settings;

const USAGE: &str = "usage: quota_server [--config FILE [--listen ADDRESS] [--grpc ADDRESS]]";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut config, mut listen, mut grpc) = (None, None, None);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match argument.as_str() {
            "--config" => config = Some(value),
            "--listen" => listen = Some(value.parse()?),
            "--grpc" => grpc = Some(value.parse()?),
            _ => return Err(USAGE.into()),
        }
    }
    let Some(config) = config else { return show::show().await };
    let mut settings = Settings::read(&config)?;
    settings.http = listen.unwrap_or(settings.http);
    settings.grpc = grpc.unwrap_or(settings.grpc);
    serve::serve(settings).await
}
