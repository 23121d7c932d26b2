//! The configuration file: its form, and what is wrong with it.

mod check;
mod shape;
mod text;

use std::{fmt, path::Path};

use self::shape::Cache;
pub(crate) use self::{
    check::{profile_files, read_profile},
    shape::{Account, Config, Secret, Server, State, Wire},
};

/// What is wrong with a configuration, each with its line and a remedy.
#[derive(Debug)]
pub(crate) struct Wrong {
    file: String,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Problem {
    line: usize,
    text: String,
}

impl Config {
    /// Reads and checks a file. Secrets are taken from the environment by `env`.
    pub(crate) fn read(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Wrong> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Wrong {
            file: file.clone(),
            problems: vec![Problem { line: 0, text: format!("it cannot be read: {error}") }],
        })?;
        Self::of_text(&file, &text, env)
    }

    /// Reads and checks a text.
    pub(crate) fn of_text(
        file: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Wrong> {
        Self::parse(text, env).map_err(|problems| Wrong { file: file.to_owned(), problems })
    }

    fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let line_of = |place: usize| text[..place.min(text.len())].matches('\n').count() + 1;
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| line_of(span.start));
            vec![Problem { line, text: error.message().to_owned() }]
        })?;
        let problems = check::check(&mut config, env);
        if problems.is_empty() {
            return Ok(config);
        }
        let placed = problems.into_iter();
        Err(placed.map(|(place, text)| Problem { line: line_of(place), text }).collect())
    }
}

impl Config {
    /// Keeps what needs a restart as it is in force, and says what of it was to change.
    pub(crate) fn keep_of(&mut self, in_force: &Self) -> Vec<&'static str> {
        let changes = [
            ("[server]", self.server != in_force.server),
            ("[state]", !self.state.is_same(&in_force.state)),
            ("[deferred]", self.deferred != in_force.deferred),
            ("where [cache] is, and its max_bytes", !self.cache.is_at(&in_force.cache)),
        ];
        self.server = in_force.server.clone();
        self.state = in_force.state.clone();
        self.deferred = in_force.deferred.clone();
        let Cache { ttl, stale_for, .. } = self.cache;
        self.cache = Cache { ttl, stale_for, ..in_force.cache.clone() };
        changes.into_iter().filter(|(_, changes)| *changes).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Problem { line, text }) in self.problems.iter().enumerate() {
            let end = if number + 1 == self.problems.len() { "" } else { "\n" };
            match line {
                0 => write!(f, "{}: {text}{end}", self.file)?,
                line => write!(f, "{}:{line}: {text}{end}", self.file)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Wrong {}
