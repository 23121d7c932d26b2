use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{Rules, RulesError};

/// A file of rules that is read again when it has changed.
///
/// A file that is read while it is being written has the beginning of its text, which can be a set
/// of rules too: a smaller one. So what was found counts when it is found twice in a row.
///
/// ```no_run
/// # async fn follow(service: tower_quota::quota_service::QuotaService) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_quota::quota_service::RuleFile;
///
/// let (mut file, rules) = RuleFile::open("rules.toml")?;
/// service.set_rules(rules);
/// loop {
///     tokio::time::sleep(Duration::from_secs(1)).await;
///     match file.read_again() {
///         Ok(None) => {}
///         Ok(Some(rules)) => service.set_rules(rules),
///         // Told once. The rules in force stay.
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RuleFile {
    path: PathBuf,
    /// What was found last and counts.
    last: Last,
    /// What was found after that, once.
    next: Option<Last>,
    /// Whether the last rules limited somebody.
    had_domains: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
enum Last {
    Nothing,
    /// It could not be read, and that was told.
    Unreadable,
    /// This text, whether it could be meant or not.
    Text(String),
}

/// A file that does not have rules in it.
#[derive(Debug)]
#[non_exhaustive]
pub enum RuleFileError {
    /// It could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Its text is not a set of rules.
    Wrong {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: RulesError,
    },
    /// Its text has no domain any more, which would limit nobody.
    Emptied {
        /// The file.
        path: PathBuf,
    },
}

impl RuleFile {
    /// Reads the rules in the file at `path`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or its text is not a set of rules.
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Rules), RuleFileError> {
        let path = path.as_ref().to_owned();
        let mut file = Self { path, last: Last::Nothing, next: None, had_domains: false };
        let (found, rules) = file.read();
        file.last = found;
        let rules = rules?;
        file.had_domains = rules.domains().next().is_some();
        Ok((file, rules))
    }

    /// The rules, if the text is another than before, at the second call that finds it. It reads
    /// the whole file, so that no clock and no kind of file system can hide a change.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); of one text, and of not being readable, once. And a text without
    /// any domain after one that had some: a file that was emptied by mistake would limit nobody.
    /// Who means it leaves one `domain` without descriptors.
    pub fn read_again(&mut self) -> Result<Option<Rules>, RuleFileError> {
        let (found, rules) = self.read();
        if self.last == found {
            self.next = None;
            return Ok(None);
        }
        if self.next.as_ref() != Some(&found) {
            self.next = Some(found);
            return Ok(None);
        }
        (self.last, self.next) = (found, None);
        let rules = rules?;
        let has_domains = rules.domains().next().is_some();
        if self.had_domains && !has_domains {
            return Err(RuleFileError::Emptied { path: self.path.clone() });
        }
        self.had_domains = has_domains;
        Ok(Some(rules))
    }

    fn read(&self) -> (Last, Result<Rules, RuleFileError>) {
        match fs::read_to_string(&self.path) {
            Ok(text) => {
                let path = self.path.clone();
                let rules = text.parse().map_err(|error| RuleFileError::Wrong { path, error });
                (Last::Text(text), rules)
            }
            Err(error) => {
                let path = self.path.clone();
                (Last::Unreadable, Err(RuleFileError::Unreadable { path, error }))
            }
        }
    }
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            Self::Wrong { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Emptied { path } => write!(
                f,
                "{} has no domain any more, which would limit nobody: write `domain = \"…\"` alone \
                 if that is meant",
                path.display()
            ),
        }
    }
}

impl Error for RuleFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreadable { error, .. } => Some(error),
            Self::Wrong { error, .. } => Some(error),
            Self::Emptied { .. } => None,
        }
    }
}
