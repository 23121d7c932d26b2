//! Follows the configuration file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{config::Config, live::Gateway};

/// Puts the file in force whenever it is not what is `known`. One that is wrong changes nothing, and is
/// told.
pub(crate) async fn watch(gateway: Arc<Gateway>, path: PathBuf, mut known: Option<String>) {
    let file = path.display().to_string();
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let mut seen = known.clone();
    loop {
        look.tick().await;
        // Editors replace a file, or write it in steps, and half of one may be right by its form: it counts
        // once it has stood for two looks.
        let Ok(text) = tokio::fs::read_to_string(&path).await else { continue };
        if known.as_ref() == Some(&text) || seen.replace(text.clone()).as_ref() != Some(&text) {
            continue;
        }
        let read = Config::of_text(&file, &text, &|name| std::env::var(name).ok());
        known = Some(text);
        let applied = read.map_err(Into::into).and_then(|config| gateway.apply(config));
        match applied {
            Ok(stays) => {
                for section in stays {
                    eprintln!("{section} is changed: that takes a restart");
                }
                println!("reloaded {file}");
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
