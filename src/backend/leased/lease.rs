mod telling;

use std::{collections::VecDeque, sync::Arc};

use super::{
    block::Block,
    blocks::Blocks,
    call::{Call, Decided, Ticket},
    counts::Counters,
    rate::Rate,
    spent::Spent,
    standing::Standing,
    terms::Terms,
};
use crate::{
    algorithm::TokenBucket,
    cost::Cost,
    decision::{Charge, Decision, Demand, RetryAfter},
    error::BackendError,
    time::{Timestamp, saturating_nanos},
};

/// What one instance holds of one key: the state machine of a lease, without clock and without I/O.
///
/// Whoever drives it tells it the time, by a clock of this process that does not go backwards, and
/// carries out its [`Call`]s: [`ask`](Self::ask) for each request; [`next_call`](Self::next_call)
/// when a request has to wait, and after each answer; [`answer`](Self::answer) with what came of
/// the call. What was drawn and what is known of the bucket is dropped with it.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Quota, algorithm::{Algorithm, TokenBucket}, time::Timestamp};
/// use tower_quota::backend::leased::{Lease, Terms};
///
/// let limit = TokenBucket::new(Quota::per_second(1_000)).burst(100);
/// let terms = Terms::new(&limit, Duration::from_millis(50), Duration::ZERO, 1);
/// assert_eq!(terms.burst(), 50);
///
/// let now = Timestamp::from_secs(1);
/// let mut bucket = terms.drawn_from().initial(now);
/// let mut lease = Lease::new(terms, now);
///
/// // Nothing is held: the request waits for a call.
/// let ticket = lease.ask(now, 1).unwrap_err();
/// let call = lease.next_call(now).unwrap();
/// let decision = terms.drawn_from().answer(&mut bucket, now, &call.demand);
///
/// let mut decided = Vec::new();
/// lease.answer(call.id, now, Ok(decision), &mut decided);
/// assert_eq!(decided[0].0, ticket);
/// assert!(decided[0].1.as_ref().unwrap().is_allowed());
/// ```
#[derive(Debug)]
pub struct Lease {
    /// What the usual path looks at stands here, close together, and nothing else.
    limit: TokenBucket,
    burst: u64,
    /// What can be spent of the first block without another look at it, and until when. Nothing
    /// while somebody waits.
    ready: u64,
    ready_until: u64,
    /// What of that was spent, and not yet taken from the block.
    spent: u64,
    /// What was asked for, and not yet counted in the rate.
    demanded: u64,
    /// When the bucket will have refilled, if nobody else draws.
    reset_at: u64,
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
    terms: Terms,
    blocks: Blocks,
    rate: Rate,
    /// What the last answer said of the bucket.
    standing: Standing,
    /// The last cost that was refused by what is held, and when that covers it. Only what changes
    /// what is held changes that.
    refused: (u64, u64),
    /// No call before this instant, while the bucket is certainly empty.
    quiet_until: u64,
    /// Who waits, first come first: ticket and cost.
    waiting: VecDeque<(Ticket, u64)>,
    next_ticket: Ticket,
    call: Option<Call>,
    calls: u64,
    counters: Arc<Counters>,
}

impl Lease {
    /// A lease that holds nothing.
    pub fn new(terms: Terms, now: Timestamp) -> Self {
        Self::counted(terms, now, Arc::default())
    }

    /// The same, counted with others.
    pub(super) fn counted(terms: Terms, now: Timestamp, counters: Arc<Counters>) -> Self {
        let rest = Rest {
            terms,
            blocks: Blocks::default(),
            rate: Rate::new(now.as_nanos()),
            standing: Standing::UNKNOWN,
            refused: (0, 0),
            quiet_until: 0,
            waiting: VecDeque::new(),
            next_ticket: 0,
            call: None,
            calls: 0,
            counters,
        };
        Self {
            limit: *terms.limit(),
            burst: terms.burst(),
            ready: 0,
            ready_until: 0,
            spent: 0,
            demanded: 0,
            reset_at: 0,
            rest: Box::new(rest),
        }
    }

    /// The terms that were given.
    pub const fn terms(&self) -> &Terms {
        &self.rest.terms
    }

    #[inline(always)]
    pub(super) fn is_under(&self, limit: &TokenBucket) -> bool {
        self.limit == *limit
    }

    /// Decides on a request, if that can be done without a call.
    ///
    /// # Errors
    ///
    /// It cannot: the request waits behind those that wait already, under this ticket.
    pub fn ask(&mut self, now: Timestamp, cost: u64) -> Result<Decision, Ticket> {
        match self.spend_ready(now, cost) {
            Some(spent) => Ok(spent.decision()),
            None => self.ask_otherwise(now, cost),
        }
    }

    /// Spends what is ready, if it covers the cost.
    #[inline(always)]
    pub(super) const fn spend_ready(&mut self, now: Timestamp, cost: u64) -> Option<Spent> {
        let now = now.as_nanos();
        if cost > self.ready || now >= self.ready_until {
            return None;
        }
        self.demanded = self.demanded.saturating_add(cost);
        self.ready -= cost;
        self.spent += cost;
        Some(self.told(now, cost, self.ready_until))
    }

    /// Decides on a request that what is ready does not cover.
    #[inline(never)]
    pub(super) fn ask_otherwise(&mut self, now: Timestamp, cost: u64) -> Result<Decision, Ticket> {
        let now = now.as_nanos();
        self.demanded = self.demanded.saturating_add(cost);
        if self.rest.waiting.is_empty() {
            let (refused, until) = self.rest.refused;
            if cost == refused && now < until {
                return Ok(self.refused_until(until, now));
            }
            if let Some(decision) = self.decide(now, cost) {
                return Ok(decision);
            }
            if self.rest.call.is_none() && self.must_not_ask(now, cost) {
                return Ok(self.empty(now, cost));
            }
        }
        let ticket = self.rest.next_ticket;
        self.rest.next_ticket += 1;
        self.rest.waiting.push_back((ticket, cost));
        self.ready = 0;
        Err(ticket)
    }

    /// Decides by what is held: enough now, enough later, or more than there ever is.
    fn decide(&mut self, now: u64, cost: u64) -> Option<Decision> {
        if cost > self.burst {
            return Some(self.denied(now, RetryAfter::Never));
        }
        if let Some(spent) = self.spend(now, cost) {
            return Some(spent.decision());
        }
        let covered_at = self.rest.blocks.covers_at(&self.rest.terms, cost)?;
        self.rest.refused = (cost, covered_at);
        Some(self.refused_until(covered_at, now))
    }

    /// Spends what is released and good.
    fn spend(&mut self, now: u64, cost: u64) -> Option<Spent> {
        let remaining = self.refresh(now).checked_sub(cost)?;
        let (_, expiry) = self.rest.blocks.spend(&self.rest.terms, now, cost);
        self.change(now);
        Some(Spent { remaining, ..self.told(now, cost, expiry) })
    }

    /// Takes what was spent from the first block, and looks up what can be spent: of the first for
    /// the usual path, and of all of them.
    fn refresh(&mut self, now: u64) -> u64 {
        let Rest { terms, blocks, rate, waiting, counters, .. } = &mut *self.rest;
        blocks.spend_first(std::mem::take(&mut self.spent));
        let (ready, until, all) = blocks.look(terms, now);
        counters.lost(rate.lost(blocks.take_lost()));
        (self.ready, self.ready_until) = if waiting.is_empty() { (ready, until) } else { (0, 0) };
        all
    }

    /// What is held has changed.
    fn change(&mut self, now: u64) {
        self.rest.refused = (0, 0);
        self.refresh(now);
    }

    /// Whether a call would be refused for certain, or is not worth it: the bucket is empty for
    /// certain, and a call could only reserve a place in the line.
    fn must_not_ask(&self, now: u64, cost: u64) -> bool {
        self.rest.standing.refuses_draw(&self.rest.terms, now, cost)
            || now < self.rest.quiet_until
                && self.rest.standing.is_empty_for(&self.rest.terms, now, cost)
    }

    /// The call that must be made now: somebody waits, and no call is out. One that has been out
    /// for longer than any answer is worth is given up.
    pub fn next_call(&mut self, now: Timestamp) -> Option<Call> {
        let now = now.as_nanos();
        if self.is_calling(now) {
            return None;
        }
        let &(_, cost) = self.rest.waiting.front()?;
        let demand = Demand::up_to(self.wanted(now, cost), Cost::new(cost));
        self.rest.calls += 1;
        self.rest.counters.draws();
        self.rest.call = Some(Call { id: self.rest.calls, demand, sent: now });
        self.rest.call
    }

    /// How many parcels of `each` to draw: what will be demanded while they are good, at least what
    /// is waited for, at most a share of what the bucket has.
    fn wanted(&mut self, now: u64, each: u64) -> u64 {
        let demanded = std::mem::take(&mut self.demanded);
        let Rest { terms, rate, standing, waiting, .. } = &mut *self.rest;
        let left = standing.most_left(terms, now);
        let is_full = left > terms.burst() / 4 * 3;
        let expected = rate.expected(now, terms.hold(), demanded, each, is_full);
        let waiting = waiting.iter().fold(0_u64, |sum, &(_, cost)| sum.saturating_add(cost));
        expected.max(waiting / each).min(left / SHARES / each).max(1)
    }

    /// Takes the answer to a call, and decides on those who wait, first come first, as far as it
    /// goes. Whoever is left waits for the [next call](Self::next_call).
    ///
    /// The answer to a call that was given up is ignored: what it drew is lost.
    pub fn answer(
        &mut self,
        id: u64,
        now: Timestamp,
        answer: Result<Decision, BackendError>,
        decided: &mut Vec<Decided>,
    ) {
        let Some(call) = self.rest.call.take_if(|call| call.id == id) else { return };
        let now = now.as_nanos();
        let answer = answer.and_then(|decision| self.learn(&call, now, decision));
        match answer {
            Ok(denied) => self.serve(now, denied, decided),
            Err(error) => {
                self.rest.counters.fails();
                let all = self.rest.waiting.drain(..);
                decided.extend(all.map(|(ticket, _)| (ticket, Err(error.clone()))));
            }
        }
    }

    /// Takes over what was drawn. Gives the cost that was refused, if any.
    fn learn(
        &mut self,
        call: &Call,
        now: u64,
        decision: Decision,
    ) -> Result<Option<u64>, BackendError> {
        let snapshot = decision.snapshot();
        self.rest.standing = Standing::known(call.sent, now, snapshot);
        self.reset_at = now.saturating_add(saturating_nanos(snapshot.reset_after));
        let each = call.demand.each.units();
        let quiet_until = call.sent.saturating_add(self.rest.terms.hold() / QUIET);
        let Decision::Allow { charge, .. } = decision else {
            self.rest.quiet_until = quiet_until;
            return Ok(Some(each));
        };
        if charge.cost.units() / each < call.demand.most {
            self.rest.quiet_until = quiet_until;
        }
        let block = Block::drawn(&self.rest.terms, call, now, &charge)?;
        self.rest.counters.drew(self.rest.rate.drew(charge.cost.units()));
        self.refresh(now);
        self.rest.blocks.draw(block);
        self.change(now);
        Ok(None)
    }

    fn serve(&mut self, now: u64, denied: Option<u64>, decided: &mut Vec<Decided>) {
        while let Some(&(ticket, cost)) = self.rest.waiting.front() {
            let decision = match self.decide(now, cost) {
                Some(decision) => decision,
                None if denied.is_some_and(|least| cost >= least)
                    || self.rest.standing.is_empty_for(&self.rest.terms, now, cost) =>
                {
                    self.empty(now, cost)
                }
                None => return,
            };
            self.rest.waiting.pop_front();
            decided.push((ticket, Ok(decision)));
        }
        self.refresh(now);
    }

    /// Whoever waits under `ticket` does not any more.
    pub fn leave(&mut self, ticket: Ticket) {
        self.rest.waiting.retain(|&(waiting, _)| waiting != ticket);
    }

    /// Takes back what `charge` took and was not used, to be spent until it expires. Too late, it
    /// is lost.
    pub fn give_back(&mut self, now: Timestamp, charge: &Charge, units: u64) {
        let now = now.as_nanos();
        self.refresh(now);
        let units = units.min(charge.cost.units());
        if units == 0 || now >= charge.mark {
            self.rest.counters.lost(units);
            return;
        }
        self.rest.blocks.give_back(&self.rest.terms, units, charge.mark);
        self.change(now);
    }

    /// Takes up to `units` of what can be spent, and gives what is lacking: to be taken from the
    /// bucket.
    pub fn take(&mut self, now: Timestamp, units: u64) -> u64 {
        let now = now.as_nanos();
        self.refresh(now);
        let (lacking, _) = self.rest.blocks.spend(&self.rest.terms, now, units);
        self.change(now);
        lacking
    }

    /// Whether `cost` could be spent now, and nobody waits for it.
    pub fn peek(&mut self, now: Timestamp, cost: u64) -> Option<Decision> {
        let now = now.as_nanos();
        let remaining = self.refresh(now);
        let is_ready = self.rest.waiting.is_empty() && cost <= remaining;
        is_ready.then(|| Spent { remaining, ..self.told(now, cost, 0) }.decision())
    }

    /// Notes that what is held is dropped.
    pub(super) fn forfeit(&mut self, now: Timestamp) {
        self.refresh(now.as_nanos());
        self.rest.counters.lost(self.rest.blocks.left());
    }

    /// Whether nobody waits: a call that is still out will be lost.
    pub fn is_unattended(&self) -> bool {
        self.rest.waiting.is_empty()
    }

    /// Whether nothing is lost with this lease: it holds nothing, and has not been asked for a
    /// while.
    pub fn is_idle(&mut self, now: Timestamp) -> bool {
        let now = now.as_nanos();
        self.refresh(now);
        let since = now.saturating_sub(self.rest.standing.received());
        !self.is_calling(now)
            && self.rest.waiting.is_empty()
            && self.rest.blocks.is_empty()
            && since / IDLE_AFTER >= self.rest.terms.hold()
    }

    /// Whether a call is out whose answer is still worth something.
    fn is_calling(&self, now: u64) -> bool {
        self.rest
            .call
            .is_some_and(|call| now.saturating_sub(call.sent) < self.rest.terms.patience())
    }
}

/// No draw takes more than this part of what the bucket has.
const SHARES: u64 = 4;

/// After a draw that found the bucket empty, the next one waits for this part of the hold time.
const QUIET: u64 = 4;

/// A lease that was not asked for so many hold times may be forgotten.
const IDLE_AFTER: u64 = 8;
