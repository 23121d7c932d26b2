use std::time::Duration;

use super::{
    Account, ByHand, Settings,
    rules::{Rules, SetLimit, Terms},
};
use crate::{
    algorithm::Plan,
    backend::{Backend, Local},
    cost::Cost,
    error::ConfigError,
    key::Key,
    name::PolicyName,
    queue::{Order, QueueBuilder},
    quota::Quota,
    upstream::{board::Board, profile::Profile},
};

/// The settings of an [`Account`].
#[derive(Clone, Debug)]
#[must_use = "an account is made by `build`"]
pub struct AccountBuilder<B = Local<Plan>> {
    settings: Settings<B>,
    by_hand: ByHand,
}

impl AccountBuilder {
    /// How differently long requests take to reach the provider, unless told otherwise.
    pub const DEFAULT_JITTER: Duration = Duration::from_millis(200);

    /// How long a stop may be, unless it is set or the profile says otherwise: as long as the
    /// longest day, so that none is cut that ends at the provider's midnight.
    pub const DEFAULT_MAX_STOP: Duration = Duration::from_secs(25 * 3_600);

    pub(super) fn new(profile: Profile) -> Self {
        let name = PolicyName::new(profile.name()).unwrap_or(PolicyName::DEFAULT);
        Self {
            settings: Settings {
                profile,
                name,
                key: Key::GLOBAL,
                backend: Local::new(),
                board: Board::new(),
                per_model: false,
                families: Vec::new(),
                jitter: Self::DEFAULT_JITTER,
                max_stop: None,
                order: Order::Fair,
                max_waiters: QueueBuilder::<Plan, Local<Plan>>::DEFAULT_MAX_WAITERS,
                max_waiters_per_flow: usize::MAX,
            },
            by_hand: ByHand {
                set: Vec::new(),
                set_for: Vec::new(),
                max_wait: Some(Duration::from_secs(60)),
            },
        }
    }
}

impl<B> AccountBuilder<B> {
    /// Sets a limit of the profile by hand: until an answer tells another, and where none does. Set
    /// twice, it is as it was set last.
    ///
    /// It is set for the time that it is of. Where the profile says that, as most do, a quota of
    /// another period is an error of [`build`](Self::build), and so is a limit of what the profile
    /// does not count: either would be another limit than the one that was said.
    ///
    /// ```
    /// use tower_quota::{ConfigError, Quota, upstream::{Account, Profile}};
    ///
    /// let gemini = || Account::builder(Profile::ready("gemini").expect("it is ready-made"));
    /// let account = gemini().limit("requests-day", Quota::per_day(500)).build();
    /// assert!(account.is_ok());
    /// // Its `requests` are those of a minute.
    /// let error = gemini().limit("requests", Quota::per_day(500)).build().expect_err("no day");
    /// assert!(matches!(error, ConfigError::LimitPeriod { .. }));
    /// ```
    ///
    /// Of a limit on requests in progress (`concurrency`) the quota's amount counts, whatever its
    /// period is: so many are let through whose answers have not ended, and the others wait in
    /// line. They are those of this account in this process. For a fleet put a
    /// [`ConcurrencyLayer`](crate::concurrency::ConcurrencyLayer) with slots on a server outside of
    /// the [`UpstreamLayer`](crate::upstream::UpstreamLayer): what holds a slot while it waits for
    /// another limit does no harm, but what waits for a slot after it was counted comes later than
    /// it was counted.
    ///
    /// ```
    /// use tower_quota::{Quota, upstream::{Account, Profile}};
    ///
    /// let deepseek = Profile::ready("deepseek").expect("it is ready-made");
    /// let account = Account::builder(deepseek).limit("concurrency", Quota::per_second(500)).build();
    /// assert!(account.is_ok());
    /// ```
    pub fn limit(mut self, name: &str, quota: Quota) -> Self {
        self.by_hand.set.retain(|own| *own.name != *name);
        self.by_hand.set.push(SetLimit { name: name.into(), quota });
        self
    }

    /// Sets a limit of one model, in place of that of all. It makes limits [by
    /// model](Self::per_model). A limit of a model that is counted with its
    /// [family](Self::model_family) is an error of [`build`](Self::build): set that of the family.
    pub fn model_limit(mut self, model: &str, name: &str, quota: Quota) -> Self {
        let is_other = |(of, own): &(Box<str>, SetLimit)| **of != *model || *own.name != *name;
        self.by_hand.set_for.retain(is_other);
        self.by_hand.set_for.push((model.into(), SetLimit { name: name.into(), quota }));
        self.per_model()
    }

    /// Each model has limits of its own, as with most providers. 256 models are told apart, and
    /// those that have [limits of their own](Self::model_limit), and
    /// [families](Self::model_family); by default all are counted together.
    pub fn per_model(mut self) -> Self {
        self.settings.per_model = true;
        self
    }

    /// All models whose names begin so have the same limits, as one model of that name: it is what
    /// they are told and [set](Self::model_limit) by. So it is where a provider counts a family
    /// together, or has several names for one model. Of several beginnings the longest counts. It
    /// makes limits [by model](Self::per_model).
    ///
    /// ```
    /// use tower_quota::{Quota, upstream::{Account, Profile}};
    ///
    /// let anthropic = Profile::ready("anthropic").expect("it is ready-made");
    /// let account = Account::builder(anthropic)
    ///     .model_family("claude-sonnet-4")
    ///     .model_limit("claude-sonnet-4", "requests", Quota::per_minute(50))
    ///     .build()?;
    /// let of = |model| account.limits(model).algorithm().clone();
    /// assert_eq!(of("claude-sonnet-4-5-20250929"), of("claude-sonnet-4-5"));
    /// assert_ne!(of("claude-sonnet-4-5"), of("claude-haiku-4-5"));
    /// # Ok::<(), tower_quota::ConfigError>(())
    /// ```
    ///
    /// Wrong: nothing of the kind, where one program writes `claude-sonnet-4-5` and another the
    /// name with a date. Each would have a quota of its own here, and one at the provider.
    pub fn model_family(mut self, beginning: &str) -> Self {
        self.settings.families.push(beginning.into());
        self.per_model()
    }

    /// Counts in `backend` what is used: in a server's, for a fleet.
    pub fn backend<B2: Backend<Plan>>(self, backend: B2) -> AccountBuilder<B2> {
        let Settings {
            profile,
            name,
            key,
            board,
            per_model,
            families,
            jitter,
            max_stop,
            order,
            max_waiters,
            max_waiters_per_flow,
            ..
        } = self.settings;
        let settings = Settings {
            profile,
            name,
            key,
            backend,
            board,
            per_model,
            families,
            jitter,
            max_stop,
            order,
            max_waiters,
            max_waiters_per_flow,
        };
        AccountBuilder { settings, by_hand: self.by_hand }
    }

    /// Shares what answers say by `board`: with all that share the backend. By default only clones
    /// share it.
    pub fn board(mut self, board: Board) -> Self {
        self.settings.board = board;
        self
    }

    /// The name of its metrics and events; that of the profile unless told otherwise. Not the key,
    /// nor anything else that is secret.
    pub fn name(mut self, name: PolicyName) -> Self {
        self.settings.name = name;
        self
    }

    /// What the account is known by in the backend, where several share one.
    pub fn key(mut self, key: Key) -> Self {
        self.settings.key = key;
        self
    }

    /// By how much sooner or later than others a request may reach the provider. So much of a limit
    /// is left unused: a fifth of a second of 60 unless told otherwise.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.settings.jitter = jitter;
        self
    }

    /// How long a stop may be that an answer tells. Unless it is set, that is what the profile says
    /// is the longest that its provider tells: a month and an hour with Zhipu, which has caps of a
    /// week and of a month, else 25 hours. A longer one is cut to that, here and for all that share
    /// the [board](Self::board): a provider that says by mistake to come back in a year stops the
    /// fleet for a day, and is asked again then. One that no waiting ends, and what is [stopped by
    /// hand](Account::halt), is not cut.
    pub fn max_stop(mut self, max_stop: Duration) -> Self {
        self.settings.max_stop = Some(max_stop);
        self
    }

    /// In which order those who wait are admitted. By default the [flows](crate::queue::Ask::flow)
    /// take turns.
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// How many may wait for a quota; 1,024 unless told otherwise.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.settings.max_waiters = max_waiters;
        self
    }

    /// How many of one [flow](crate::queue::Ask::flow) may wait for a quota, under [`Order::Fair`];
    /// other orders do not tell flows apart, and this bounds nothing. Without a bound by default:
    /// then a flow may fill the line, but gives way to others.
    pub fn max_waiters_per_flow(mut self, max_waiters: usize) -> Self {
        self.settings.max_waiters_per_flow = max_waiters;
        self
    }

    /// How long anybody may wait; a minute unless told otherwise.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.by_hand.max_wait = Some(max_wait);
        self
    }
}

impl<B: Backend<Plan>> AccountBuilder<B> {
    /// The account.
    ///
    /// # Errors
    ///
    /// A limit was set that [cannot be kept](Profile::check_limit) as it was said, or for a model
    /// that is counted with its family; or the profile has more than a [`Plan`] can hold.
    pub fn build(self) -> Result<Account<B>, ConfigError> {
        let Settings { profile, jitter, .. } = &self.settings;
        let ByHand { set, set_for, .. } = &self.by_hand;
        for limit in set.iter().chain(set_for.iter().map(|(_, limit)| limit)) {
            profile.check_limit(&limit.name, limit.quota)?;
        }
        for (model, _) in set_for {
            let family = self.settings.known_as(model);
            if *family != **model {
                let (model, family) = (model.to_string(), family.to_owned());
                return Err(ConfigError::LimitInFamily { model, family });
            }
        }
        let (told, before, beyond, largest) = (&[], &[], Cost::ZERO, Cost::ZERO);
        Rules::new(&Terms { profile, set, told, before, jitter: *jitter, beyond, largest })?;
        Ok(Account::new(self.settings, self.by_hand))
    }
}
