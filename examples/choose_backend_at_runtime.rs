//! The home of the states is chosen when the program starts. The layer has one type all the same.
//!
//! ```sh
//! cargo run --example choose_backend_at_runtime            # tries each
//! cargo run --example choose_backend_at_runtime -- strict  # or one
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;

use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    Key, Quota, TokenBucketLayer,
    algorithm::TokenBucket,
    backend::{DynBackend, Local, LocalBuilder, local::WhenFull},
};

fn backend_named(name: &str) -> Result<DynBackend<TokenBucket>, BoxError> {
    Ok(match name {
        // Room for a million keys.
        "memory" => DynBackend::new(Local::new()),
        // Room for one, and whoever comes second is refused.
        "strict" => {
            let store = LocalBuilder::new().capacity(1).when_full(WhenFull::Refuse);
            DynBackend::new(store.build())
        }
        other => return Err(format!("{other:?} is neither `memory` nor `strict`").into()),
    })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let chosen: Vec<String> = env::args().skip(1).collect();
    let chosen = if chosen.is_empty() { vec!["memory".into(), "strict".into()] } else { chosen };
    for name in chosen {
        let layer = TokenBucketLayer::new(Quota::per_hour(2))
            .backend(backend_named(&name)?)
            .key(|user: &&'static str| Key::from(*user));
        let mut service = ServiceBuilder::new()
            .layer(layer)
            .service(service_fn(|_: &'static str| async { Ok::<_, BoxError>("hello".to_owned()) }));

        let mut admitted = 0;
        for user in ["alice", "alice", "alice", "bob"] {
            let answer = service.ready().await?.call(user).await;
            admitted += usize::from(answer.is_ok());
            println!("{name}, {user}: {}", answer.unwrap_or_else(|error| error.to_string()));
        }
        assert_eq!(admitted, if name == "strict" { 2 } else { 3 });
    }
    Ok(())
}
