mod health;

use std::{
    cmp::Reverse,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::request::Parts;
use tokio::time::Instant;

use self::health::Health;
use super::{
    account::{Account, Hold, Ledger, Line},
    estimate::Estimate,
    profile::Profile,
};
use crate::{
    algorithm::Plan,
    backend::{Backend, Local},
    cost::Cost,
    decision::RetryAfter,
    queue::Ask,
    rejection::{Rejection, Throttled},
    time::timer_now,
};

/// Several accounts, keys or deployments that can answer the same requests.
///
/// A request goes to the account that has most left of what is nearest to refusing, and to the next
/// if it would have to wait there; if it has to wait everywhere, it waits where its turn comes
/// first. When the account refuses, the request goes on to another, if its body was
/// [short enough](super::UpstreamLayer::max_peek) to be sent again: never to another key of the
/// same account, which has the same quota. Where its provider is down it does so if it is
/// [told to](super::UpstreamLayer::fail_over).
///
/// ```
/// use http::{header::AUTHORIZATION, HeaderValue, request::Parts};
/// use tower_quota::{Quota, upstream::{Account, Pool, Profile}};
///
/// let account = || {
///     let profile = Profile::ready("openai").expect("it is ready-made");
///     Account::builder(profile).limit("requests", Quota::per_minute(20)).build()
/// };
/// let key = |key: &'static str| move |request: &mut Parts| {
///     request.headers.insert(AUTHORIZATION, HeaderValue::from_static(key));
/// };
/// let (ours, theirs) = (account()?, account()?);
/// let pool = Pool::new()
///     // Two keys of one account share its quota and take turns.
///     .member(ours.clone(), key("Bearer one"))
///     .member(ours, key("Bearer two"))
///     .member(theirs, key("Bearer three"));
/// assert_eq!(pool.len(), 3);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
///
/// # Clone
///
/// A clone has the same accounts.
#[derive(Clone)]
pub struct Pool<B: Backend<Plan> = Local<Plan>> {
    members: Vec<Member<B>>,
}

/// A key of an account.
#[derive(Clone)]
struct Member<B: Backend<Plan>> {
    account: Account<B>,
    prepare: Option<Prepare>,
    /// That of the account.
    health: Arc<Health>,
    /// Counts the account's requests, so that its keys take turns.
    turn: Arc<AtomicUsize>,
}

type Prepare = Arc<dyn Fn(&mut Parts) + Send + Sync>;

/// What a request asks for.
pub(super) struct Question<'q> {
    pub(super) model: Option<&'q str>,
    /// By the profile of an account.
    pub(super) estimate: &'q (dyn Fn(&Profile) -> Estimate + Send + Sync),
    pub(super) ask: &'q (dyn Fn(Cost) -> Ask + Send + Sync),
    /// When it came: its waits count from there.
    pub(super) since: Instant,
}

/// A request that may be sent by a member of a pool.
pub(super) struct Sendable<B: Backend<Plan>> {
    pub(super) member: usize,
    pub(super) hold: Hold<B>,
}

impl<B: Backend<Plan>> Pool<B> {
    /// A pool without accounts: it refuses everything.
    pub fn new() -> Self {
        Self { members: Vec::new() }
    }

    /// Adds an account, or a key of one that is there. `prepare` makes a request one for it: its
    /// authority, its credentials.
    #[must_use]
    pub fn member(
        mut self,
        account: Account<B>,
        prepare: impl Fn(&mut Parts) + Send + Sync + 'static,
    ) -> Self {
        let same = self.members.iter().find(|member| member.account.is_same(&account));
        let (health, turn) =
            same.map(|same| (Arc::clone(&same.health), Arc::clone(&same.turn))).unwrap_or_default();
        self.members.push(Member { account, prepare: Some(Arc::new(prepare)), health, turn });
        self
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The profiles of the members, in their order.
    pub(super) fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.members.iter().map(|member| member.account.profile())
    }

    /// Makes a request one for this member.
    pub(super) fn prepare(&self, member: usize, parts: &mut Parts) {
        if let Some(Member { prepare: Some(prepare), .. }) = self.members.get(member) {
            prepare(parts);
        }
    }

    /// What was sent by this member then was answered, or its provider failed.
    pub(super) fn came_to(&self, member: usize, sent: Instant, has_failed: bool) {
        let health = &self.members[member].health;
        if has_failed { health.failed(sent, timer_now()) } else { health.answered(sent) }
    }

    /// Whether an account is left that is not one of these members'.
    pub(super) fn has_another(&self, tried: &[usize]) -> bool {
        !self.accounts(tried).is_empty()
    }

    /// Waits until a request may be sent by one whose account is not one of these members'.
    pub(super) async fn admit(
        &self,
        question: &Question<'_>,
        tried: &[usize],
    ) -> Result<Sendable<B>, Rejection> {
        loop {
            let now = timer_now();
            let rests = |member: &usize| self.members[*member].health.rests(now);
            let accounts = self.accounts(tried).into_iter();
            let (resting, well): (Vec<_>, Vec<_>) = accounts.partition(rests);
            if well.is_empty() {
                return self.admit_by(question, resting).await;
            }
            match self.admit_by(question, well).await {
                Ok(sendable) => {
                    if self.members[sendable.member].health.takes(timer_now()) {
                        return Ok(sendable);
                    }
                    // It failed while this one waited for it, or another tries it by now: what was
                    // held comes back, and one that is well is looked for anew.
                }
                // Better one that may not answer than none.
                Err(_) if !resting.is_empty() => return self.admit_by(question, resting).await,
                Err(rejection) => return Err(rejection),
            }
        }
    }

    /// Waits until a request may be sent by the account of one of these members.
    async fn admit_by(
        &self,
        question: &Question<'_>,
        members: Vec<usize>,
    ) -> Result<Sendable<B>, Rejection> {
        let ledger = |member: usize| (member, self.members[member].account.ledger(question.model));
        let mut lanes: Vec<_> = members.into_iter().map(ledger).collect();
        if lanes.len() > 1 {
            // What is free, then where fewest wait, then what has most left.
            lanes.sort_by_key(|(_, ledger)| {
                let (wait, depth, free) = ledger.outlook();
                (wait, depth, Reverse(free))
            });
            let mut waits = Vec::with_capacity(lanes.len());
            for (member, ledger) in &lanes {
                match self.send_by(*member, ledger, question, Line::Passed).await {
                    Ok(sendable) => return Ok(sendable),
                    Err(rejection) => {
                        waits.push((wait_of(&rejection), *member, Arc::clone(ledger)));
                    }
                }
            }
            waits.sort_by_key(|(wait, ..)| *wait);
            lanes = waits.into_iter().map(|(_, member, ledger)| (member, ledger)).collect();
        }
        match lanes.first() {
            Some((member, ledger)) => self.send_by(*member, ledger, question, Line::Joined).await,
            None => Err(Rejection::Throttled(Throttled::new(None))),
        }
    }

    async fn send_by(
        &self,
        member: usize,
        ledger: &Arc<Ledger<B>>,
        question: &Question<'_>,
        line: Line,
    ) -> Result<Sendable<B>, Rejection> {
        let account = &self.members[member].account;
        let estimate = (question.estimate)(account.profile());
        let ask = (question.ask)(ledger.cost(&estimate));
        let hold = ledger.admit(estimate, ask, question.since, line).await?;
        Ok(Sendable { member: self.key_of(account), hold })
    }

    /// The first member of each account that is not one of these members'.
    fn accounts(&self, tried: &[usize]) -> Vec<usize> {
        let is_tried = |account: &Account<B>| {
            tried.iter().any(|tried| account.is_same(&self.members[*tried].account))
        };
        let mut first: Vec<usize> = Vec::new();
        for (index, member) in self.members.iter().enumerate() {
            let is_known =
                first.iter().any(|of| member.account.is_same(&self.members[*of].account));
            if !is_known && !is_tried(&member.account) {
                first.push(index);
            }
        }
        first
    }

    /// The key of an account whose turn it is.
    fn key_of(&self, account: &Account<B>) -> usize {
        let is_its = |index: &usize| account.is_same(&self.members[*index].account);
        let keys: Vec<usize> = (0..self.members.len()).filter(is_its).collect();
        let turn = &self.members[keys[0]].turn;
        keys[turn.fetch_add(1, Ordering::Relaxed) % keys.len()]
    }
}

fn wait_of(rejection: &Rejection) -> RetryAfter {
    rejection.retry_after().unwrap_or(RetryAfter::Never)
}

/// A single account, whose requests are as they came.
impl<B: Backend<Plan>> From<Account<B>> for Pool<B> {
    fn from(account: Account<B>) -> Self {
        let (health, turn) = Default::default();
        Self { members: vec![Member { account, prepare: None, health, turn }] }
    }
}

impl<B: Backend<Plan>> Default for Pool<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Backend<Plan>> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = self.members.iter().map(|member| &member.account);
        f.debug_list().entries(accounts).finish()
    }
}
