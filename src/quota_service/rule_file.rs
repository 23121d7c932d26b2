use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{Rules, RulesError};

/// A file of rules that is read again when it has changed.
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
    last: Last,
}

/// What was found last.
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
}

impl RuleFile {
    /// Reads the rules in the file at `path`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or its text is not a set of rules.
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Rules), RuleFileError> {
        let mut file = Self { path: path.as_ref().to_owned(), last: Last::Nothing };
        let rules = file.read_again()?;
        Ok((file, rules.expect("a file that was never read is read as changed")))
    }

    /// The rules, if the text is not the one that was read last. It reads the whole file, so that
    /// no clock and no kind of file system can hide a change.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); of one text, and of not being readable, once.
    pub fn read_again(&mut self) -> Result<Option<Rules>, RuleFileError> {
        let (found, told) = match fs::read_to_string(&self.path) {
            Ok(text) => {
                let path = self.path.clone();
                let rules = text.parse().map_err(|error| RuleFileError::Wrong { path, error });
                (Last::Text(text), rules)
            }
            Err(error) => {
                let path = self.path.clone();
                (Last::Unreadable, Err(RuleFileError::Unreadable { path, error }))
            }
        };
        if self.last == found {
            return Ok(None);
        }
        self.last = found;
        told.map(Some)
    }
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            Self::Wrong { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl Error for RuleFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreadable { error, .. } => Some(error),
            Self::Wrong { error, .. } => Some(error),
        }
    }
}
