//! Follows the configuration file, and those of its profiles.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{self, Config},
    live::Gateway,
};

/// What stands in the files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Texts {
    configuration: String,
    /// One that is not there is none.
    profiles: Vec<Option<String>>,
}

impl Texts {
    /// Nothing, if there is no configuration.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let configuration = fs::read_to_string(path).ok()?;
        let profiles = config::profile_files(&configuration);
        let profiles = profiles.iter().map(|profile| fs::read_to_string(profile).ok()).collect();
        Some(Self { configuration, profiles })
    }
}

/// Puts the files in force whenever they are not what is `known`. What is wrong changes nothing,
/// and is told.
pub(crate) async fn watch(gateway: Arc<Gateway>, path: PathBuf, mut known: Option<Texts>) {
    let file = path.display().to_string();
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let mut seen = known.clone();
    loop {
        look.tick().await;
        // Editors replace a file, or write it in steps, and half of one may be right by its form: it counts
        // once it has stood for two looks.
        let path = path.clone();
        let read = tokio::task::spawn_blocking(move || Texts::read(&path)).await;
        let Ok(Some(texts)) = read else { continue };
        if known.as_ref() == Some(&texts) || seen.replace(texts.clone()).as_ref() != Some(&texts) {
            continue;
        }
        let read = Config::of_text(&file, &texts.configuration, &|name| std::env::var(name).ok());
        known = Some(texts);
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
