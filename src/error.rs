//! What can go wrong in a configuration and in a backend.

use std::{error::Error, fmt, sync::Arc, time::Duration};

/// A configuration that cannot be meant, and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The largest cost does not fit in the limit, so such a request is refused for ever.
    CostAboveCapacity {
        /// The most that a request may cost: the same for each, or what `largest_cost` said.
        cost: u64,
        /// The most that the limit ever holds.
        capacity: u64,
    },
    /// The largest cost fits in what is given out ahead and not in the burst, so such a request
    /// starts with more than the burst at once.
    CostAboveBurst {
        /// The largest cost that the layer's cost says it has.
        cost: u64,
        /// The most that may start at once.
        burst: u64,
    },
    /// A header that names the client's address is a key, without a proxy that is trusted to write
    /// it.
    ForgeableHeader {
        /// The header.
        header: String,
    },
    /// Two limits of one limiter have the same name.
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A limit was set that does not bind ordinary requests, by the profile of the provider.
    LimitApart {
        /// Its name.
        name: String,
    },
    /// A limit was set for a model that is counted with its family, so that nothing would keep it.
    LimitInFamily {
        /// The model.
        model: String,
        /// How the names of its family begin.
        family: String,
    },
    /// A limit was told for a model of an account whose limits are not by model, so that nothing
    /// would keep it.
    LimitNotByModel {
        /// The model.
        model: String,
    },
    /// A limit was set of what the profile of the provider does not count, so that nothing would
    /// keep it.
    LimitNotCounted {
        /// Its name.
        name: String,
        /// What the profile counts.
        counted: String,
    },
    /// A limit was set for another time than the one that it is of, by the profile of the provider.
    LimitPeriod {
        /// Its name.
        name: String,
        /// The time that it is of.
        window: Duration,
        /// The time that it was set for.
        period: Duration,
        /// The limit of the profile that is of the time that was meant.
        instead: Option<String>,
    },
    /// A limit above the largest one.
    LimitOutOfRange {
        /// The limit.
        limit: u64,
        /// The largest limit.
        largest: u64,
    },
    /// A text that is not the name of a header is to be a key.
    MalformedHeader,
    /// A text that is not the name of a limit.
    MalformedName {
        /// The text.
        name: String,
    },
    /// A text that is not a network of trusted proxies.
    MalformedNetwork {
        /// The text.
        network: String,
    },
    /// A text that is not a quota.
    MalformedQuota {
        /// The text.
        text: String,
    },
    /// A limit was set that the profile of the provider does not have.
    UnknownLimit {
        /// Its name.
        name: String,
    },
    /// A text that is not the name of a time zone that this machine knows.
    UnknownTimeZone {
        /// The text.
        name: String,
    },
    /// Clients are counted by address, but requests have come without that of their socket. It is
    /// the first requests that show it.
    NoPeerAddress,
    /// A proxy's header is to be believed, but no proxy is trusted.
    NoTrustedProxies,
    /// A period of zero, or longer than the longest.
    PeriodOutOfRange {
        /// The period.
        period: Duration,
        /// The longest period.
        longest: Duration,
    },
    /// A prefix length, a number of segments or of entries that makes no sense.
    SettingOutOfRange {
        /// Which setting.
        setting: &'static str,
        /// What was given.
        value: u64,
        /// The least and the greatest that is possible.
        range: (u64, u64),
    },
    /// A plan without a limit, or with more than 64.
    PlanSize {
        /// How many it has.
        limits: usize,
    },
    /// One store is charged twice for each request. A layer does not know what it wraps, so it is
    /// the first requests that show it: a layer's `check` finds it after them, not at the start.
    CountedTwice {
        /// The name of the layer that found its store in use already.
        name: String,
    },
}

impl ConfigError {
    /// Checks a setting that is a number.
    pub(crate) const fn check(
        setting: &'static str,
        value: u64,
        range: (u64, u64),
    ) -> Result<(), Self> {
        if range.0 <= value && value <= range.1 {
            return Ok(());
        }
        Err(Self::SettingOutOfRange { setting, value, range })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CostAboveCapacity { cost, capacity } => write!(
                f,
                "a request may cost {cost} but the limit never holds more than {capacity}, so it \
                 would be refused for ever: raise the limit (`.burst({cost})` for a token bucket, \
                 `.depth({cost})` for a leaky bucket) or lower the cost"
            ),
            Self::CostAboveBurst { cost, burst } => write!(
                f,
                "a request may cost {cost} but the burst is {burst}, and as turns are given out \
                 ahead it would start with more than that at once: raise the burst \
                 (`.burst({cost})`) or lower the cost"
            ),
            Self::ForgeableHeader { header } => write!(
                f,
                "`{header}` is a key, but any client can write it, and so have a quota of its own \
                 for each request: write `ClientAddr::new()`, or behind proxies \
                 `ClientAddr::behind(TrustedProxies::parse([\"10.0.0.0/8\"])?)` with their \
                 networks, and tell it the header that they write by `.header(..)`: \
                 `ProxyHeader::XForwardedFor` or `ProxyHeader::Forwarded`, the lists it reads, or \
                 `ProxyHeader::Single(..)` for one that holds one address"
            ),
            Self::DuplicateName { name } => write!(
                f,
                "two limits are named `{name}`: give each a name of its own, so that a refusal \
                 can say which one bound"
            ),
            Self::LimitApart { name } => write!(
                f,
                "the limit {name:?} is apart: it does not bind ordinary requests, so nothing would \
                 count it; send those that it binds by an account of their own, whose profile has \
                 it without `apart`"
            ),
            Self::LimitInFamily { model, family } => write!(
                f,
                "the model {model:?} is counted with the family {family:?}, so nothing would keep \
                 a limit of its own: set one for {family:?}, or make it a family of its own by \
                 `.model_family({model:?})`"
            ),
            Self::LimitNotByModel { model } => write!(
                f,
                "the limits of this account are not by model, so nothing would keep one for \
                 {model:?}: tell it for `\"\"`, or build the account with `.per_model()`"
            ),
            Self::LimitNotCounted { name, counted } => write!(
                f,
                "nothing counts what the limit {name:?} is of, so nothing would keep it: set a \
                 limit of what the profile counts, {counted}, or write a profile of your own"
            ),
            Self::LimitPeriod { name, window, period, instead } => {
                write!(
                    f,
                    "the limit {name:?} is one of {window:?} by the profile, and was set for \
                     {period:?}, which nothing would keep: "
                )?;
                match instead {
                    Some(instead) => write!(f, "set {instead:?}, the limit of that time"),
                    None => f.write_str(
                        "set what there is in the time of the profile, or write a profile of your \
                         own that has a limit of yours",
                    ),
                }
            }
            Self::LimitOutOfRange { limit, largest } => {
                write!(f, "a limit of {limit} is above the largest, {largest}")
            }
            Self::MalformedHeader => f.write_str(
                "a key is the header of a name that no header can have, so no request has the key \
                 and all are counted together: write the name alone, as in `header(\"x-api-key\")`",
            ),
            Self::MalformedName { name } => write!(
                f,
                "{name:?} is not a policy name: write a lower-case letter, then lower-case \
                 letters, digits, `_`, `-` or `.`, 64 characters at most"
            ),
            Self::MalformedNetwork { network } => write!(
                f,
                "{network:?} is not a network: write an address (`10.0.0.1`) or a prefix \
                 (`10.0.0.0/8`, `fd00::/8`)"
            ),
            Self::MalformedQuota { text } => {
                write!(f, "{text:?} is not a quota: write `100/s`, `60/min` or `1000/30 days`")
            }
            Self::UnknownLimit { name } => write!(
                f,
                "the profile has no limit named {name:?}: `Profile::limits` tells those it has"
            ),
            Self::UnknownTimeZone { name } => {
                write!(f, "{name:?} is not a known time zone: write one like `Europe/Berlin`")
            }
            Self::NoPeerAddress => f.write_str(
                "clients are counted by address, but the server does not say which: a request came \
                 without the address of its socket, and all such are counted together. Serve with \
                 `into_make_service_with_connect_info::<SocketAddr>()` (axum, and the feature \
                 `axum`), insert a `PeerAddr` into the request's extensions (hyper), or say where \
                 the address is by `ClientAddr::peer` (tonic)",
            ),
            Self::NoTrustedProxies => f.write_str(
                "a proxy's header is to be believed but no proxy is trusted, so any client could \
                 choose its own address: list the networks of your proxies, or key by the socket's \
                 address",
            ),
            Self::PeriodOutOfRange { period, longest } => {
                write!(f, "a period of {period:?} is not between one nanosecond and {longest:?}")
            }
            Self::SettingOutOfRange { setting, value, range: (least, most) } => {
                write!(f, "{setting} is {value}, but must be from {least} to {most}")
            }
            Self::PlanSize { limits } => {
                write!(f, "a plan has from 1 to 64 limits, this one has {limits}")
            }
            Self::CountedTwice { name } => write!(
                f,
                "a request passed two layers that charge one store, the second named `{name}`: \
                 it is counted twice. Remove one of them, or give the second a store of its own"
            ),
        }
    }
}

impl Error for ConfigError {}

/// A backend could not decide.
///
/// It is about the state's home, not about the quota: whether the request then goes on is the
/// layer's [`OnBackendError`](crate::policy::OnBackendError).
#[derive(Clone, Debug)]
pub struct BackendError {
    kind: BackendErrorKind,
    /// In a box, for the sake of those who are told no error: an `Arc` is dropped by its address,
    /// so an answer that might have one in it could not stay in registers.
    source: Option<Box<Arc<dyn Error + Send + Sync>>>,
}

/// Why a backend could not decide.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// The backend has failed before, and is not asked until it is due again. The key was not
    /// charged.
    CircuitOpen,
    /// The backend answered something that cannot be understood, or keeps something under a name of
    /// ours that is none of ours.
    Malformed,
    /// The backend refused to do it, and would again: its answer is the source of the error.
    Rejected,
    /// Every slot of a bounded store holds a key that still counts, and it was told to refuse new
    /// ones.
    StoreFull,
    /// The backend does not let us in, or not do what a decision needs: see the least-privilege
    /// ACL in the guide. The key was not charged.
    Unauthorized,
    /// No answer in time. Whether the key was charged is not known.
    TimedOut,
    /// The backend could not be reached; the key was not charged.
    Unreachable,
}

impl BackendErrorKind {
    /// Every kind.
    #[cfg(all(feature = "local", feature = "metrics"))]
    pub(crate) const ALL: &[Self] = &[
        Self::CircuitOpen,
        Self::Malformed,
        Self::Rejected,
        Self::StoreFull,
        Self::TimedOut,
        Self::Unauthorized,
        Self::Unreachable,
    ];

    /// Its name in metrics and events, and on a page.
    ///
    /// ```
    /// use tower_quota::BackendErrorKind;
    ///
    /// assert_eq!(BackendErrorKind::Unauthorized.name(), "unauthorized");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit_open",
            Self::Malformed => "malformed",
            Self::Rejected => "rejected",
            Self::StoreFull => "store_full",
            Self::TimedOut => "timed_out",
            Self::Unauthorized => "unauthorized",
            Self::Unreachable => "unreachable",
        }
    }
}

impl BackendError {
    /// An error of this kind.
    pub const fn new(kind: BackendErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Box::new(Arc::from(source.into())));
        self
    }

    /// Why the backend could not decide.
    pub const fn kind(&self) -> BackendErrorKind {
        self.kind
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BackendErrorKind::CircuitOpen => "the rate limit backend failed and is not asked now",
            BackendErrorKind::Malformed => "the rate limit backend gave a malformed answer",
            BackendErrorKind::Rejected => "the rate limit backend refused the call",
            BackendErrorKind::Unauthorized => {
                "the rate limit backend does not permit the call: check the user, the password and \
                 the ACL"
            }
            BackendErrorKind::StoreFull => "the rate limit store is full",
            BackendErrorKind::TimedOut => "the rate limit backend did not answer in time",
            BackendErrorKind::Unreachable => "the rate limit backend could not be reached",
        })
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &***source as &(dyn Error + 'static))
    }
}
