//! Accounts outlive a reload: what was used of them and told of them, who waits, what was learned.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tower::BoxError;
use tower_quota::{
    Key, PolicyName,
    algorithm::Plan,
    backend::DynBackend,
    upstream::{self, Board, Profile, Standing},
};

use crate::{
    config::{self, Config},
    numbers::lock,
    state::Home,
    upstream::{self as sending, Quota, Target, Upstream},
};

type Account = upstream::Account<DynBackend<Plan>>;

/// All that there were since the start: one that is taken away and comes back has used what it has used.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Mutex<HashMap<Identity, Kept>>);

/// What makes an account the same one. Another provider's answers say nothing of its limits, and another
/// API key of it has the same ones.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Identity {
    provider: String,
    profile: String,
    name: String,
}

#[derive(Clone, Debug)]
struct Kept {
    account: Account,
    made_of: MadeOf,
    backend: DynBackend<Plan>,
    board: Board,
    /// The provider's word, for those who look, by the model.
    standings: BTreeMap<String, Arc<Mutex<Standing>>>,
}

/// What an account cannot change. Where the profile says something else there is another account
/// over the same ledger; all else stays as it was at first.
#[derive(Clone, Debug, Eq, PartialEq)]
struct MadeOf {
    profile: String,
    fixed: Fixed,
}

/// What needs a restart: by it an account's line and its ledgers' keys are made, and another key
/// would be a whole quota again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Fixed {
    per_model: bool,
    jitter: Duration,
    max_waiting: usize,
    max_waiting_per_tenant: Option<usize>,
}

/// An account as a configuration wants it. Nothing of it is in force.
#[derive(Debug)]
pub(crate) struct Draft {
    identity: Identity,
    kept: Kept,
    /// Its limits are those that are to be.
    wanted: Account,
    /// The one that was there, for who waits at it, where it is another.
    old: Option<Account>,
    pub(crate) upstream: Arc<Upstream>,
    /// What of it is changed in the file and needs a restart.
    pub(crate) stays: Vec<String>,
}

impl Identity {
    /// What its ledger and its board are called on a server: there too, another provider's is
    /// another. A name may have 64 letters.
    fn ledger(&self) -> String {
        let hash = Sha256::new().chain_update(&self.provider).chain_update([0]);
        let hash: [u8; 32] = hash.chain_update(&self.profile).finalize().into();
        let [one, two, three, ..] = hash;
        format!("account-{}-{one:02x}{two:02x}{three:02x}", self.name)
    }
}

impl Accounts {
    /// What is to be of an account, with what there is of it.
    pub(crate) fn draft(
        &self,
        config: &Config,
        home: &Home,
        account: &config::Account,
    ) -> Result<Draft, BoxError> {
        let name = account.name.get_ref().clone();
        let provider = config.providers.iter().find(|own| own.name == account.provider);
        let provider = provider.ok_or("an account without a provider")?;
        let profile = config::read_profile(provider.profile.get_ref())?;
        let profile_text = text_of(provider.profile.get_ref());
        let identity = Identity {
            provider: provider.name.get_ref().clone(),
            profile: profile.name().to_owned(),
            name: name.clone(),
        };

        let known = lock(&self.0).get(&identity).cloned();
        let (backend, board) = match &known {
            Some(kept) => (kept.backend.clone(), kept.board.clone()),
            None => (home.backend(&identity.ledger())?, home.board(&identity.ledger())?),
        };
        let asked = Fixed::of(account, &profile);
        let fixed = known.as_ref().map_or(asked, |kept| kept.made_of.fixed);
        let made_of = MadeOf { profile: profile_text, fixed };
        let mut builder = upstream::Account::builder(profile.clone())
            .backend(backend.clone())
            .board(board.clone())
            .key(Key::from(name.as_str()))
            .name(PolicyName::new(name.clone())?)
            .jitter(fixed.jitter)
            .max_waiters(fixed.max_waiting)
            .max_wait(account.max_wait);
        if let Some(most) = fixed.max_waiting_per_tenant {
            builder = builder.max_waiters_per_flow(most);
        }
        for (limit, quota) in &account.quotas {
            builder = builder.limit(limit, *quota);
        }
        if fixed.per_model {
            builder = builder.per_model();
            for (model, limit, quota) in &account.model_quotas {
                builder = builder.model_limit(model, limit, *quota);
            }
        }
        let wanted = builder.build()?;
        let (kept, old) = match known {
            Some(kept) if kept.made_of == made_of => (kept, None),
            Some(Kept { account, .. }) => {
                // What was told is read by the profile: it is told anew.
                let standings = BTreeMap::new();
                let own = Kept { account: wanted.clone(), made_of, backend, board, standings };
                (own, Some(account))
            }
            None => {
                let (account, standings) = (wanted.clone(), BTreeMap::new());
                (Kept { account, made_of, backend, board, standings }, None)
            }
        };
        let mut draft = Draft {
            stays: asked.differences(fixed, &name),
            upstream: Arc::new(Upstream {
                name,
                account: kept.account.clone(),
                board: kept.board.clone(),
                quotas: Vec::new(),
                target: Target::new(provider.base_url.get_ref()).ok_or("no base URL")?,
                profile,
                wire: provider.speaks,
                keys: account.keys.clone(),
                client: provider.roots.clone().map(sending::client_trusting),
                timeout: provider.timeout,
                idle_timeout: provider.idle_timeout,
            }),
            identity,
            kept,
            wanted,
            old,
        };
        let quotas = draft.quotas(config, account);
        if let Some(upstream) = Arc::get_mut(&mut draft.upstream) {
            upstream.quotas = quotas;
        }
        Ok(draft)
    }

    /// Puts drafts in force. It cannot fail.
    pub(crate) fn put_in_force(&self, drafts: Vec<Draft>) {
        let mut accounts = lock(&self.0);
        for Draft { identity, kept, wanted, old, upstream, .. } in drafts {
            // Who waits at one that is replaced waits by the new limits too.
            for account in old.iter().chain([&kept.account]) {
                account.adopt(&wanted);
            }
            for own in &upstream.quotas {
                let mut standing = lock(&own.standing);
                for (limit, quota) in &own.set {
                    let told = |own: &upstream::LimitStanding| {
                        own.limit.is_some_and(|(_, source)| source != upstream::Source::Configured)
                    };
                    if !standing.limits().iter().any(|own| own.name == *limit && told(own)) {
                        standing.configure(limit, quota.limit(), quota.period());
                    }
                }
            }
            accounts.insert(identity, kept);
        }
    }
}

impl Fixed {
    /// As the file has it.
    fn of(account: &config::Account, profile: &Profile) -> Self {
        let per_model = account.per_model.as_ref().map(|per_model| *per_model.get_ref());
        let per_model = per_model.unwrap_or_else(|| is_per_model(profile));
        Self {
            per_model: per_model || !account.model_limits.is_empty(),
            jitter: account.jitter,
            max_waiting: *account.max_waiting.get_ref(),
            max_waiting_per_tenant: account
                .max_waiting_per_tenant
                .as_ref()
                .map(|own| *own.get_ref()),
        }
    }

    /// The names of what is not as it is there.
    fn differences(self, there: Self, account: &str) -> Vec<String> {
        let differences = [
            ("per_model, or the first or last of model_limits,", self.per_model != there.per_model),
            ("jitter", self.jitter != there.jitter),
            ("max_waiting", self.max_waiting != there.max_waiting),
            ("max_waiting_per_tenant", self.max_waiting_per_tenant != there.max_waiting_per_tenant),
        ];
        let names = differences.into_iter().filter(|(_, differs)| *differs);
        names.map(|(name, _)| format!("{name} of account `{account}`")).collect()
    }
}

impl Draft {
    /// What is counted apart, each with what is known of it and its own limits.
    fn quotas(&mut self, config: &Config, account: &config::Account) -> Vec<Quota> {
        let own = config.models.iter().filter(|model| model.accounts.contains(&account.name));
        let own = own.filter(|_| self.kept.made_of.fixed.per_model);
        let mut models: BTreeSet<_> = own.map(|model| model.at_provider().to_owned()).collect();
        if models.is_empty() {
            models.insert(String::new());
        }
        let profile = &self.upstream.profile;
        let standings = &mut self.kept.standings;
        let quotas = models.into_iter().map(|model| {
            let standing = standings.entry(model.clone());
            let standing = standing.or_insert_with(|| Arc::new(Mutex::new(Standing::new(profile))));
            let mut set = account.quotas.clone();
            for (of, limit, quota) in &account.model_quotas {
                if *of == model {
                    set.retain(|(name, _)| name != limit);
                    set.push((limit.clone(), *quota));
                }
            }
            Quota { standing: Arc::clone(standing), model, set }
        });
        quotas.collect()
    }
}

/// Whether the provider is known to have limits for each model.
fn is_per_model(profile: &Profile) -> bool {
    let name = profile.name();
    let together = ["hugging-face", "ietf", "openrouter"];
    Profile::READY.contains(&name) && !together.contains(&name)
}

/// What a profile says: the name of one that is ready-made, the text of a file.
fn text_of(profile: &str) -> String {
    match Profile::ready(profile) {
        Some(_) => profile.to_owned(),
        None => fs::read_to_string(profile).unwrap_or_default(),
    }
}
