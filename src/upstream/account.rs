mod builder;
mod expected;
mod free;
mod gate;
mod hold;
mod ledger;
mod rules;
mod stopped;
mod trial;
mod turns;
mod untold;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

pub use self::builder::AccountBuilder;
use self::{
    expected::Expected,
    free::Free,
    gate::{Gate, Watch},
    ledger::{Known, lock},
    rules::{Rules, SetLimit, Terms},
};
pub(super) use self::{
    hold::Hold,
    ledger::{Ledger, Line},
};
use super::{
    board::{Board, KnownLimit, Notice},
    observation::{Source, Stop},
    profile::Profile,
    standing::Standing,
};
use crate::{
    algorithm::Plan,
    backend::{Backend, Local},
    cost::Cost,
    decision::Snapshot,
    error::{BackendError, ConfigError},
    key::Key,
    limiter::{Limit, Limiter},
    name::PolicyName,
    observe::upstream::Observer,
    queue::{Order, QueueBuilder},
    time::timer_now,
};

/// An account at a provider: what its limits are, what was used of them, and what its answers have
/// said.
///
/// The [profile](Profile) says what is limited and how to read the provider's answers. How much
/// there is, is [set](AccountBuilder::limit) or learned from the answers; what they tell goes
/// before what was set. What was used is in a [backend](AccountBuilder::backend): with a server's,
/// a fleet has one ledger, and one [board](AccountBuilder::board) for what one of its instances was
/// told.
///
/// ```
/// use tower_quota::{Quota, upstream::{Account, Profile}};
///
/// let profile = Profile::ready("openai").expect("it is ready-made");
/// let account = Account::builder(profile)
///     .limit("requests", Quota::per_minute(500))
///     .limit("tokens", Quota::per_minute(200_000))
///     .build()?;
/// assert_eq!(account.notice("").stop, None);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
///
/// # A quota belongs to an account
///
/// Not to a key. Several keys of one account are clones of one `Account`, with credentials of their
/// own in a [`Pool`](super::Pool).
///
/// # What is not known yet
///
/// Where no limit is known at the start, one request is sent, and one more at a time for each
/// answer that comes, until an answer tells the limits or all is well with 64 at a time.
///
/// # Clone
///
/// A clone is a handle: it has the same limits, and the same requests wait for them.
pub struct Account<B: Backend<Plan> = Local<Plan>>(Arc<Inner<B>>);

struct Inner<B: Backend<Plan>> {
    settings: Settings<B>,
    state: Mutex<State<B>>,
}

/// What of an account changes.
struct State<B: Backend<Plan>> {
    by_hand: ByHand,
    /// The quotas that were asked for: one, or one for each model.
    ledgers: HashMap<Box<str>, Arc<Ledger<B>>>,
}

#[derive(Clone, Debug)]
struct Settings<B> {
    profile: Profile,
    name: PolicyName,
    key: Key,
    backend: B,
    board: Board,
    per_model: bool,
    /// How the names of models begin that have one quota.
    families: Vec<Box<str>>,
    jitter: Duration,
    /// As long as the profile says unless it was set.
    max_stop: Option<Duration>,
    order: Order,
    max_waiters: usize,
    max_waiters_per_flow: usize,
}

/// What was set by hand, and may be [set anew](Account::adopt).
#[derive(Clone, Debug)]
struct ByHand {
    set: Vec<SetLimit>,
    /// Limits of single models.
    set_for: Vec<(Box<str>, SetLimit)>,
    max_wait: Option<Duration>,
}

impl Account {
    /// An account at the provider of this profile. Its state is in this process unless another
    /// [backend](AccountBuilder::backend) is given.
    pub fn builder(profile: Profile) -> AccountBuilder {
        AccountBuilder::new(profile)
    }
}

impl<B: Backend<Plan>> Account<B> {
    fn new(settings: Settings<B>, by_hand: ByHand) -> Self {
        let state = Mutex::new(State { by_hand, ledgers: HashMap::new() });
        Self(Arc::new(Inner { settings, state }))
    }

    /// The profile of the provider.
    pub fn profile(&self) -> &Profile {
        &self.0.settings.profile
    }

    /// What is known of a quota: the stop that holds, and the limits that were told. The quota is a
    /// model's name where there are [limits by model](AccountBuilder::per_model), else `""`.
    pub fn notice(&self, quota: &str) -> Notice {
        self.0.settings.board.notice(self.0.settings.known_as(quota))
    }

    /// The limits in force.
    pub fn limits(&self, quota: &str) -> Limit<Plan> {
        let ledger = self.ledger(Some(quota));
        ledger.follow();
        ledger.limiter().limit()
    }

    /// How the limit stands that is nearest to refusing.
    ///
    /// # Errors
    ///
    /// The backend failed.
    pub async fn standing(&self, quota: &str) -> Result<Snapshot, BackendError> {
        let ledger = self.ledger(Some(quota));
        ledger.follow();
        Ok(ledger.limiter().peek(&ledger.key, 0).await?.snapshot())
    }

    /// How many requests wait for a quota.
    pub fn waiting(&self, quota: &str) -> usize {
        self.ledger(Some(quota)).outlook().1
    }

    /// Ends a stop by hand, for the whole fleet. One without an end, as when a bill is not paid, is
    /// of the whole account: its quota is `""`, unless it is for a limit's sake, as that of a grant
    /// that each model has.
    pub fn resume(&self, quota: &str) {
        self.0.settings.board.resume(self.0.settings.known_as(quota));
    }

    /// Stops a quota for the whole fleet, unless a longer stop holds.
    pub fn halt(&self, quota: &str, stop: Stop) {
        self.0.settings.board.post_stop(self.0.settings.known_as(quota), stop);
    }

    /// Tells the whole fleet of a limit, as one does who has asked the provider for it. It holds at
    /// once, also in place of one that was inferred, until an answer to a later request tells
    /// another.
    ///
    /// ```
    /// use tower_quota::{ConfigError, upstream::{Account, Dimension, KnownLimit, Profile}};
    ///
    /// let profile = Profile::ready("gemini").expect("it is ready-made");
    /// let account = Account::builder(profile).build()?;
    /// account.tell("", KnownLimit::new("requests", Dimension::Requests, 15))?;
    /// // Gemini does not limit what is put out, so nothing is counted that this could limit.
    /// let output = KnownLimit::new("output", Dimension::OutputTokens, 1_000);
    /// assert!(matches!(account.tell("", output), Err(ConfigError::LimitNotCounted { .. })));
    /// # Ok::<(), ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing would keep it, and nobody is told: it is of what the [profile](Profile) does not
    /// count, or does not bind ordinary requests; or it is for a model, and the account has no
    /// [limits by model](AccountBuilder::per_model).
    pub fn tell(&self, quota: &str, limit: KnownLimit) -> Result<(), ConfigError> {
        let Settings { board, profile, per_model, .. } = &self.0.settings;
        if !per_model && !quota.is_empty() {
            return Err(ConfigError::LimitNotByModel { model: quota.into() });
        }
        profile.check_counted(&limit.name, limit.dimension)?;
        let (told, source) = (board.now(), Source::Configured);
        let limit = KnownLimit { told, source, ..limit };
        board.post_limit(self.0.settings.known_as(quota), limit);
        Ok(())
    }

    /// Puts in force what was set for `other`: its limits, and how long anybody may wait. It is how
    /// a program changes them while requests run: it builds an account as it shall be, which finds
    /// what is wrong, and lets the one that is in use adopt it, which cannot fail.
    ///
    /// All else stays: what was used and what is under way, what answers have told, the stops, who
    /// waits in line and how estimates are corrected. A limit that was told goes before one that
    /// was set, as always. Who waits is looked at anew. Whether limits are by model, and which
    /// models are a family, stays too. A limit that the profile does not have is not taken over;
    /// one that it has for another time is here as it was.
    ///
    /// ```
    /// use tower_quota::{Quota, upstream::{Account, Profile}};
    ///
    /// let with = |requests| {
    ///     let profile = Profile::ready("openai").expect("it is ready-made");
    ///     Account::builder(profile).limit("requests", Quota::per_minute(requests)).build()
    /// };
    /// let account = with(500)?;
    /// account.adopt(&with(60)?);
    /// assert_eq!(account.limits("").algorithm(), with(60)?.limits("").algorithm());
    /// # Ok::<(), tower_quota::ConfigError>(())
    /// ```
    pub fn adopt(&self, other: &Self) {
        let by_hand = lock(&other.0.state).by_hand.clone();
        let mut state = lock(&self.0.state);
        let by_hand = by_hand.instead_of(&state.by_hand, self.profile());
        for (quota, ledger) in &state.ledgers {
            ledger.set(by_hand.of(quota), by_hand.max_wait);
        }
        state.by_hand = by_hand;
    }

    /// The quota that requests for a model count against.
    pub(super) fn ledger(&self, model: Option<&str>) -> Arc<Ledger<B>> {
        let settings = &self.0.settings;
        let mut quota = model.map(|model| settings.quota_of(model)).unwrap_or_default();
        let mut state = lock(&self.0.state);
        let State { by_hand, ledgers } = &mut *state;
        // Those that were named by hand are not many, and are somebody's.
        let mut named = by_hand.set_for.iter().map(|(model, _)| model).chain(&settings.families);
        let is_named = named.any(|name| **name == *quota);
        if ledgers.len() >= MAX_QUOTAS && !is_named && !ledgers.contains_key(quota) {
            quota = "";
        }
        if let Some(ledger) = ledgers.get(quota) {
            return Arc::clone(ledger);
        }
        let ledger = Arc::new(settings.ledger(quota, by_hand));
        ledgers.insert(quota.into(), Arc::clone(&ledger));
        ledger
    }

    /// Whether both are handles to one account.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<B: Backend<Plan>> Settings<B> {
    /// The quota that requests for a model count against.
    fn quota_of<'m>(&'m self, model: &'m str) -> &'m str {
        if self.per_model { self.known_as(model) } else { "" }
    }

    /// The name of a model's quota: its own, or that of its family.
    fn known_as<'m>(&'m self, model: &'m str) -> &'m str {
        let families = self.families.iter().filter(|beginning| model.starts_with(&***beginning));
        families.max_by_key(|beginning| beginning.len()).map_or(model, |beginning| beginning)
    }

    fn max_stop(&self) -> Duration {
        let usual = AccountBuilder::DEFAULT_MAX_STOP;
        self.max_stop.or_else(|| self.profile.longest_stop()).unwrap_or(usual)
    }

    fn ledger(&self, quota: &str, by_hand: &ByHand) -> Ledger<B> {
        let set = by_hand.of(quota);
        let (told, before, beyond, largest) = (&[], &[], Cost::ZERO, Cost::ZERO);
        let (profile, jitter) = (&self.profile, self.jitter);
        let rules =
            Rules::new(&Terms { profile, set: &set, told, before, jitter, beyond, largest });
        let rules = rules.expect("the builder has tried it");
        let (board, is_unknown) = (self.board.clone(), rules.is_unknown());
        let watch = Watch::new(board, quota.into(), rules.most, is_unknown);
        let watch = Arc::new(watch);
        let gate = Gate { backend: self.backend.clone(), watch: Arc::clone(&watch) };
        let limiter = Limiter::of(Limit::new(self.name.clone(), rules.plan.clone()), gate);
        let queue = QueueBuilder::new(limiter)
            .order(self.order)
            .max_waiters(self.max_waiters)
            .max_waiters_per_flow(self.max_waiters_per_flow);
        #[cfg(feature = "redis")]
        let queue = queue.sharing(self.board.shares(quota));
        let key = match quota {
            "" => self.key.clone(),
            quota => Key::join([&self.key, &Key::from(quota)]),
        };
        Ledger {
            quota: quota.into(),
            key,
            profile: self.profile.clone(),
            queue: queue.build(),
            watch,
            board: self.board.clone(),
            jitter: self.jitter,
            max_stop: self.max_stop(),
            known: Mutex::new(Known {
                rules: Arc::new(rules),
                set,
                max_wait: by_hand.max_wait,
                limits: Vec::new(),
                beyond: Cost::ZERO,
                largest: Cost::ZERO,
                version: 0,
            }),
            expected: Mutex::new(Expected::default()),
            standing: Mutex::new(Standing::new(&self.profile)),
            untold: Mutex::default(),
            free: Mutex::new(Free::all(timer_now())),
            observer: Observer::new(self.name.clone()),
        }
    }
}

impl ByHand {
    /// The limits of a quota. Those of its model go first.
    fn of(&self, quota: &str) -> Vec<SetLimit> {
        let set_for = self.set_for.iter().filter(|(model, _)| **model == *quota);
        set_for.map(|(_, limit)| limit).chain(&self.set).cloned().collect()
    }

    /// What of it holds by a profile that need not be that of the account for which it was set.
    /// Where it does not, what was set `before` stays.
    fn instead_of(self, before: &Self, profile: &Profile) -> Self {
        let holds = |limit: &SetLimit| profile.check_limit(&limit.name, limit.quota).is_ok();
        let set = self.set.into_iter().filter_map(|limit| {
            let own = || before.set.iter().find(|own| own.name == limit.name).cloned();
            if holds(&limit) { Some(limit) } else { own() }
        });
        let set_for = self.set_for.into_iter().filter_map(|(model, limit)| {
            let is_it = |(of, own): &&(Box<str>, SetLimit)| *of == model && own.name == limit.name;
            let own = || before.set_for.iter().find(is_it).cloned();
            if holds(&limit) { Some((model, limit)) } else { own() }
        });
        Self { set: set.collect(), set_for: set_for.collect(), max_wait: self.max_wait }
    }
}

impl<B: Backend<Plan>> Clone for Account<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Backend<Plan>> fmt::Debug for Account<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("name", &self.0.settings.name)
            .field("profile", &self.0.settings.profile)
            .field("board", &self.0.settings.board)
            .finish_non_exhaustive()
    }
}

/// The models that are told apart beside those that have limits of their own and the families;
/// requests for more count as those without a model.
const MAX_QUOTAS: usize = 256;
