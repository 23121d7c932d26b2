use std::{fmt, sync::Arc, time::Duration};

use super::{Settings, Shared, SharedConcurrencyLimiter, outage::Outage, roster::Roster};
use crate::{
    backend::{
        guarded::Fallback,
        redis::{
            RedisBuilder,
            slots::{SlotLimits, SlotSettings, slot_server},
            source::Source,
        },
    },
    name::PolicyName,
    observe::slots::SlotObserver,
};

/// The settings of a [`SharedConcurrencyLimiter`].
#[must_use = "a limiter is made by `build`"]
pub struct SharedConcurrencyBuilder<S> {
    source: S,
    names: SlotSettings,
    settings: Settings,
    on_failure: Fallback,
}

impl<S: Source> SharedConcurrencyBuilder<S> {
    /// For how long a slot is lent unless told otherwise.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
    /// How many requests wait for one key's slots at most unless told otherwise.
    pub const DEFAULT_MAX_WAITING: u64 = 1_024;
    /// How many requests wait for slots of all keys together at most unless told otherwise, where
    /// they have a total.
    pub const DEFAULT_MAX_TOTAL_WAITING: u64 = 4_096;
    /// How often somebody who waits looks unless told otherwise.
    pub const DEFAULT_LOOK_EVERY: Duration = Duration::from_millis(100);

    /// `max_per_key` slots for each key, under this name; zero is closed.
    pub const fn new(source: S, name: PolicyName, max_per_key: u64) -> Self {
        Self {
            source,
            names: SlotSettings {
                prefix: RedisBuilder::<S>::DEFAULT_PREFIX,
                name,
                hash_key: None,
                timeout: RedisBuilder::<S>::DEFAULT_TIMEOUT,
            },
            settings: Settings {
                limits: SlotLimits {
                    per_key: max_per_key,
                    total: None,
                    waiting_per_key: Self::DEFAULT_MAX_WAITING,
                    total_waiting: Self::DEFAULT_MAX_TOTAL_WAITING,
                },
                lease: Self::DEFAULT_LEASE,
                look_every: Self::DEFAULT_LOOK_EVERY,
                timeout: RedisBuilder::<S>::DEFAULT_TIMEOUT,
            },
            on_failure: Fallback::Refuse,
        }
    }

    /// For how long a slot is lent, from a hundred milliseconds to a day: so long it is not free
    /// when its holder was killed, and so long a holder goes on without an answer of the server. It
    /// is renewed after a third.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.clamp(Duration::from_millis(100), Duration::from_secs(86_400));
        self
    }

    /// Sets how many requests of all instances wait for the slots of one key at most.
    pub fn max_waiting(mut self, max_waiting: u64) -> Self {
        self.settings.limits.waiting_per_key = max_waiting;
        self
    }

    /// Sets how many slots all keys together have, over all instances. By default there is no such
    /// limit.
    ///
    /// All that share the slots must have a total, or none: with one, all keys are
    /// [one value](SharedConcurrencyLimiter#cost) on the server. Those with a total and those
    /// without do not see each other's slots: while a fleet that runs is given one, instance by
    /// instance, up to twice `max_per_key` of a key are lent, and the total does not hold. Where
    /// that may not be, the old instances must have ended before the first new one begins.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_quota::{PolicyName, backend::redis::Server};
    /// use tower_quota::concurrency::SharedConcurrencyBuilder;
    ///
    /// let server = Server::open("redis://127.0.0.1:6379")?;
    /// // Three for each tenant, and a hundred in all: as many as the model's workers take.
    /// let slots = SharedConcurrencyBuilder::new(server, PolicyName::from_static("model"), 3)
    ///     .max_total(100)
    ///     .build();
    /// # let _ = slots;
    /// # Ok(()) }
    /// ```
    pub fn max_total(mut self, max_total: u64) -> Self {
        self.settings.limits.total = Some(max_total);
        self
    }

    /// Sets how many requests of all instances wait for the slots of all keys together at most,
    /// where they have a [total](Self::max_total): 4,096 by default.
    pub fn max_total_waiting(mut self, max_waiting: u64) -> Self {
        self.settings.limits.total_waiting = max_waiting;
        self
    }

    /// How often the first few who wait at each key look whether they have been served, where
    /// nobody tells them; a tenth as often where somebody does. From one millisecond on.
    pub fn look_every(mut self, time: Duration) -> Self {
        self.settings.look_every = time.max(Duration::from_millis(1));
        self
    }

    /// What decides while the server does not. By default nothing does, and the error is told.
    pub fn on_failure(self, fallback: Fallback) -> Self {
        Self { on_failure: fallback, ..self }
    }

    /// Begins the names of all keys with `prefix`, as
    /// [`RedisBuilder::prefix`](crate::backend::redis::RedisBuilder::prefix) does.
    pub fn prefix(mut self, prefix: PolicyName) -> Self {
        self.names.prefix = prefix;
        self
    }

    /// Hashes what is secret or long under `secret`, as
    /// [`RedisBuilder::hash_key`](crate::backend::redis::RedisBuilder::hash_key) does.
    pub fn hash_key(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.names.hash_key = Some(secret.as_ref().into());
        self
    }

    /// How long an answer of the server may take, from when it is asked for: a tenth of a second by
    /// default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.names.timeout = timeout;
        self.settings.timeout = timeout;
        self
    }

    /// The limiter. Nothing is sent yet.
    pub fn build(self) -> SharedConcurrencyLimiter {
        let Self { source, names, settings, on_failure } = self;
        let outage = Outage::new(names.name.clone(), on_failure, &settings, names.timeout);
        let server = slot_server(source, &names);
        let (roster, observer) = (Roster::default(), SlotObserver::new(names.name));
        let shared = Shared { server, settings, roster, outage, observer };
        SharedConcurrencyLimiter { shared: Arc::new(shared) }
    }
}

impl<S> fmt::Debug for SharedConcurrencyBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConcurrencyBuilder")
            .field("settings", &self.settings)
            .field("on_failure", &self.on_failure)
            .finish_non_exhaustive()
    }
}
