//! What the form alone does not say: names that are used are declared, and secrets are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use http::{HeaderValue, Uri};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use toml::Spanned;
use tower_quota::{PolicyName, Quota, upstream::Profile};

use super::{
    shape::{Account, Config, Secret},
    text,
};

/// The place in the file, and what to do about it.
type Found = (usize, String);

pub(super) fn check(config: &mut Config, env: &dyn Fn(&str) -> Option<String>) -> Vec<Found> {
    let mut found = Vec::new();
    once("provider", config.providers.iter().map(|own| &own.name), &mut found);
    once("account", config.accounts.iter().map(|own| &own.name), &mut found);
    once("model", config.models.iter().map(|own| &own.name), &mut found);
    once("plan", config.plans.iter().map(|own| &own.name), &mut found);
    once("tenant", config.tenants.iter().map(|own| &own.name), &mut found);
    for (kind, is_empty) in [
        ("provider", config.providers.is_empty()),
        ("account", config.accounts.is_empty()),
        ("model", config.models.is_empty()),
        ("plan", config.plans.is_empty()),
        ("tenant", config.tenants.is_empty()),
    ] {
        if is_empty {
            found.push((0, format!("there is no {kind}; add a table [[{kind}]]")));
        }
    }
    upstream_side(config, env, &mut found);
    tenants_side(config, env, &mut found);
    if let Some(name) = &config.state.redis_env {
        config.state.redis = secret(name, env, &mut found);
    }
    cache(config, env, &mut found);
    found
}

/// Where answers are kept.
fn cache(config: &mut Config, env: &dyn Fn(&str) -> Option<String>, found: &mut Vec<Found>) {
    let Config { cache, state, .. } = config;
    let shared = cache.shared.as_ref().filter(|shared| *shared.get_ref());
    match (shared, &cache.redis_env) {
        (None, None) => {}
        (None, Some(name)) => {
            let text = "answers are not shared; write `shared = true` too, or take this away";
            found.push((name.span().start, text.into()));
        }
        (Some(_), Some(name)) => cache.server = secret(name, env, found),
        (Some(shared), None) => {
            if state.redis_env.is_none() {
                let text = "there is no server to share answers by; name one in `redis_env`, here or in [state]";
                found.push((shared.span().start, text.into()));
            }
            cache.server = state.redis.clone();
        }
    }
    if let Some(name) = &cache.secret_env {
        cache.secret = secret(name, env, found);
    }
}

fn upstream_side(
    config: &mut Config,
    env: &dyn Fn(&str) -> Option<String>,
    found: &mut Vec<Found>,
) {
    let providers = names(config.providers.iter().map(|own| &own.name));
    let accounts = names(config.accounts.iter().map(|own| &own.name));
    for provider in &mut config.providers {
        if let Err(problem) = read_profile(provider.profile.get_ref()) {
            found.push((provider.profile.span().start, problem));
        }
        let url: Result<Uri, _> = provider.base_url.get_ref().parse();
        let is_good = url.is_ok_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && url.query().is_none()
        });
        if !is_good {
            // What stands there may hold a password or a key: it is not repeated.
            let text = "this is no base URL; write one like \"https://api.example.com\", without user \
                        and query";
            found.push((provider.base_url.span().start, String::from(text)));
        }
        if let Some(file) = &provider.ca_file {
            match authorities(file.get_ref()) {
                Ok(roots) => provider.roots = Some(Arc::new(roots)),
                Err(problem) => found.push((file.span().start, problem)),
            }
        }
    }
    for account in &mut config.accounts {
        known("provider", &account.provider, &providers, found);
        well_named(&account.name, found);
        keys(account, env, found);
        line(account, found);
        let provider = config.providers.iter().find(|own| own.name == account.provider);
        let profile = provider.and_then(|own| read_profile(own.profile.get_ref()).ok());
        account.quotas = limits(&account.limits, profile.as_ref(), found);
        let own = config.models.iter().filter(|own| own.accounts.contains(&account.name));
        let own: BTreeSet<_> = own.map(|own| own.at_provider().to_owned()).collect();
        for (model, of_model) in &account.model_limits {
            known("model", model, &own, found);
            let quotas = limits(of_model, profile.as_ref(), found).into_iter();
            let model = model.get_ref();
            account.model_quotas.extend(quotas.map(|(name, quota)| (model.clone(), name, quota)));
        }
        if let Some(per_model) =
            account.per_model.as_ref().filter(|per_model| !*per_model.get_ref())
            && !account.model_limits.is_empty()
        {
            let text = "its models have limits of their own; take this away, or `model_limits`";
            found.push((per_model.span().start, text.into()));
        }
    }
    for model in &config.models {
        for account in &model.accounts {
            known("account", account, &accounts, found);
        }
        let mut of_model = config.accounts.iter().filter(|own| model.accounts.contains(&own.name));
        let speaks = |own: &Account| {
            let provider = config.providers.iter().find(|one| one.name == own.provider);
            provider.map(|one| (one.speaks, one.profile.get_ref().clone()))
        };
        let first = of_model.next().and_then(speaks);
        if model.accounts.is_empty() {
            let remedy = "name at least one in `accounts`";
            found.push((model.name.span().start, format!("the model has no account; {remedy}")));
        } else if of_model.any(|own| speaks(own) != first) {
            let text = "its accounts speak differently; give each language a model of its own";
            found.push((model.name.span().start, String::from(text)));
        }
    }
}

/// The API keys of an account.
fn keys(account: &mut Account, env: &dyn Fn(&str) -> Option<String>, found: &mut Vec<Found>) {
    if account.key_env.is_some() != account.key_envs.is_empty() {
        let text = "give the account either `key_env`, or several keys in `key_envs`";
        found.push((account.name.span().start, text.into()));
    }
    for name in account.key_env.iter().chain(&account.key_envs) {
        let Some(key) = secret(name, env, found) else { continue };
        if HeaderValue::try_from(key.expose()).is_err() {
            let text =
                "what this variable holds is no API key; it has a line break, or is not ASCII";
            found.push((name.span().start, text.into()));
        }
        if account.keys.contains(&key) {
            let text = "the account has this key already; take one away";
            found.push((name.span().start, text.into()));
        }
        account.keys.push(key);
    }
}

/// The certificates of a file.
fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let remedy = "name a file of certificates in PEM";
    let shown = file.display();
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let read: Vec<_> =
        read.map_err(|error| format!("`{shown}` cannot be read: {error}; {remedy}"))?;
    let mut roots = RootCertStore::empty();
    let (good, bad) = roots.add_parsable_certificates(read);
    if good == 0 || bad > 0 {
        return Err(format!("`{shown}` has {good} certificates and {bad} that are none; {remedy}"));
    }
    Ok(roots)
}

/// The limits of an account, or of one of its models.
fn limits(
    written: &BTreeMap<String, Spanned<String>>,
    profile: Option<&Profile>,
    found: &mut Vec<Found>,
) -> Vec<(String, Quota)> {
    let mut limits = Vec::new();
    for (name, limit) in written {
        let place = limit.span().start;
        let of_profile = |profile: &&Profile| profile.limits().any(|(own, _, _)| own == name);
        if let Some(profile) = profile.filter(|profile| !of_profile(profile)) {
            let own: Vec<_> = profile.limits().map(|(own, _, _)| own.to_owned()).collect();
            let (own, profile) = (own.join(", "), profile.name());
            found
                .push((place, format!("profile `{profile}` has no limit `{name}`; it has: {own}")));
        }
        let quota = match text::quota(limit.get_ref()) {
            Ok(quota) => quota,
            Err(problem) => {
                found.push((place, problem));
                continue;
            }
        };
        // What it would take and not keep.
        if let Some(profile) = profile.filter(of_profile)
            && let Err(error) = profile.check_limit(name, quota)
        {
            found.push((place, format!("profile `{}`: {error}", profile.name())));
        }
        limits.push((name.clone(), quota));
    }
    limits
}

/// The line of those who wait for an account.
fn line(account: &Account, found: &mut Vec<Found>) {
    let all = *account.max_waiting.get_ref();
    if all == 0 {
        let text = "a line of 0 refuses every call that is not admitted at once; write 1 or more";
        found.push((account.max_waiting.span().start, String::from(text)));
    }
    let Some(own) = &account.max_waiting_per_tenant else { return };
    if !(1..=all.max(1)).contains(own.get_ref()) {
        let text = format!("of a line of {all}, a tenant has between 1 and {all} places");
        found.push((own.span().start, text));
    }
}

fn tenants_side(config: &mut Config, env: &dyn Fn(&str) -> Option<String>, found: &mut Vec<Found>) {
    let plans = names(config.plans.iter().map(|own| &own.name));
    let models = names(config.models.iter().map(|own| &own.name));
    for plan in &mut config.plans {
        if plan.weight == 0 {
            found.push((
                plan.name.span().start,
                "a weight of 0 is no share; write 1 or more".into(),
            ));
        }
        let limits = [
            ("requests", 0, &plan.requests),
            ("tokens", 1, &plan.tokens),
            ("budget", 1, &plan.budget),
        ];
        for (name, dimension, limit) in limits {
            let Some(limit) = limit else { continue };
            match text::quota(limit.get_ref()) {
                Ok(quota) => plan.quotas.push((name, dimension, quota)),
                Err(problem) => found.push((limit.span().start, problem)),
            }
        }
        well_named(&plan.name, found);
    }
    let mut seen = BTreeSet::new();
    for tenant in &mut config.tenants {
        known("plan", &tenant.plan, &plans, found);
        for model in &tenant.models {
            known("model", model, &models, found);
        }
        let place = match (&tenant.key_env, &tenant.key_sha256) {
            (Some(name), None) => {
                let Some(key) = secret(name, env, found) else { continue };
                tenant.hash = Sha256::digest(key.expose()).into();
                name.span().start
            }
            (None, Some(hash)) => {
                let place = hash.span().start;
                let Some(bytes) = unhex(hash.get_ref()) else {
                    let remedy = "write 64 hexadecimal digits: printf %s KEY | sha256sum";
                    found.push((place, format!("this is no SHA-256; {remedy}")));
                    continue;
                };
                tenant.hash = bytes;
                place
            }
            _ => {
                let text = "give the tenant either `key_env` or `key_sha256`";
                found.push((tenant.name.span().start, String::from(text)));
                continue;
            }
        };
        if !seen.insert(tenant.hash) {
            let text = "another tenant has the same key; give each its own";
            found.push((place, String::from(text)));
        }
    }
}

/// A ready-made profile, or one of a file.
pub(crate) fn read_profile(name: &str) -> Result<Profile, String> {
    if let Some(ready) = Profile::ready(name) {
        return Ok(ready);
    }
    if Path::new(name).extension().is_none_or(|extension| extension != "toml") {
        let ready = Profile::READY.join(", ");
        return Err(format!(
            "there is no profile `{name}`; write a path to one (.toml), or: {ready}"
        ));
    }
    let text = std::fs::read_to_string(name)
        .map_err(|error| format!("the profile `{name}` cannot be read: {error}"))?;
    text.parse().map_err(|error| format!("the profile `{name}`: {error}"))
}

/// The files of profiles that a configuration names, though it may be wrong in everything else.
pub(crate) fn profile_files(configuration: &str) -> Vec<String> {
    let table: toml::Table = configuration.parse().unwrap_or_default();
    let providers = table.get("provider").and_then(toml::Value::as_array);
    let profiles = providers.into_iter().flatten().filter_map(|own| own.get("profile")?.as_str());
    profiles.filter(|name| Profile::ready(name).is_none()).map(str::to_owned).collect()
}

/// Plans and accounts give their names to what is counted, on a server too.
fn well_named(name: &Spanned<String>, found: &mut Vec<Found>) {
    let text = name.get_ref();
    if text.len() > 48 || PolicyName::new(text.as_str()).is_err() {
        let remedy = "use up to 48 small letters, digits, `-`, `_` and `.`, a letter first";
        found.push((name.span().start, format!("`{text}` is no name; {remedy}")));
    }
}

fn once<'n>(kind: &str, names: impl Iterator<Item = &'n Spanned<String>>, found: &mut Vec<Found>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.get_ref()) {
            let text = format!("{kind} `{}` is declared twice; rename one", name.get_ref());
            found.push((name.span().start, text));
        }
    }
}

fn names<'n>(names: impl Iterator<Item = &'n Spanned<String>>) -> BTreeSet<String> {
    names.map(|name| name.get_ref().clone()).collect()
}

fn known(kind: &str, name: &Spanned<String>, all: &BTreeSet<String>, found: &mut Vec<Found>) {
    if !all.contains(name.get_ref()) {
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let remedy = match all.as_slice() {
            [] => format!("add a table [[{kind}]] of that name"),
            all => {
                format!("add a table [[{kind}]] of that name, or use one of: {}", all.join(", "))
            }
        };
        let text = format!("there is no {kind} `{}`; {remedy}", name.get_ref());
        found.push((name.span().start, text));
    }
}

fn secret(
    name: &Spanned<String>,
    env: &dyn Fn(&str) -> Option<String>,
    found: &mut Vec<Found>,
) -> Option<Secret> {
    let value = env(name.get_ref()).filter(|value| !value.is_empty());
    // A name that looks like a key is one that was put here by mistake: it is not repeated.
    let is_name = name
        .get_ref()
        .chars()
        .all(|own| own.is_ascii_uppercase() || own.is_ascii_digit() || own == '_');
    match value {
        Some(value) => Some(Secret(value)),
        None if is_name => {
            let text = format!(
                "the environment has no {0}; export {0}=... before the start",
                name.get_ref()
            );
            found.push((name.span().start, text));
            None
        }
        None => {
            let text =
                "this is the name of an environment variable, like MY_KEY: put the secret there";
            found.push((name.span().start, String::from(text)));
            None
        }
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}
