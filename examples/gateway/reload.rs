//! Follows the configuration file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{config::Config, live::Gateway};

/// Puts the file in force whenever it is not what is `known`. One that is wrong changes nothing, and is
/// told.
pub(crate) async fn watch(gateway: Arc<Gateway>, path: PathBuf, mut known: Option<Vec<u8>>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        // Editors write a file in steps, or replace it: what matters is what stands in it.
        let Ok(text) = tokio::fs::read(&path).await else { continue };
        if known.as_ref() == Some(&text) {
            continue;
        }
        known = Some(text);
        let read = Config::read(&path, &|name| std::env::var(name).ok());
        let applied = read.map_err(Into::into).and_then(|config| gateway.apply(config));
        match applied {
            Ok(()) => {
                println!("reloaded {}", path.display());
                gateway.numbers.learn("", "reload", String::from("the configuration has changed"));
            }
            Err(error) => {
                eprintln!("not reloaded, the old one stays in force:\n{error}");
                let text = String::from("the changed configuration is wrong, the old one stays");
                gateway.numbers.learn("", "reload", text);
            }
        }
    }
}
