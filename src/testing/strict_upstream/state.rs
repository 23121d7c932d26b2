//! Accounts, and who is let in.

use std::{collections::VecDeque, time::Duration};

use super::{
    fault::Fault,
    ledger::{Bill, Line},
    limit::{Counted, ProviderLimit, Told},
    record::{LimitRecord, Record, Refused},
};
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct State {
    accounts: Vec<Account>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) record: Record,
    pub(super) in_flight: usize,
    pub(super) calls: u64,
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    keys: Vec<String>,
    lines: Vec<Line>,
    /// When the longest wait ends that the account was told.
    told_to_wait_until: Timestamp,
}

/// What was charged to whom, and when.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    account: usize,
    model: String,
    bill: Bill,
    at: Timestamp,
}

/// What the headers of an answer say of a limit.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) counted: Counted,
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) full_in: Duration,
}

/// Why a call was not let in.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) account: String,
    pub(super) counted: Counted,
    pub(super) period: Duration,
    pub(super) used: u64,
    pub(super) requested: u64,
    /// [`None`] where it is kept from callers.
    pub(super) limit: Option<u64>,
    pub(super) wait: Option<Duration>,
}

impl State {
    pub(super) fn new(accounts: Vec<Account>) -> Self {
        Self {
            accounts,
            faults: VecDeque::new(),
            record: Record::default(),
            in_flight: 0,
            calls: 0,
        }
    }

    pub(super) fn account_of(&self, key: &str) -> Option<usize> {
        self.accounts.iter().position(|account| account.keys.iter().any(|own| own == key))
    }

    pub(super) fn name_of(&self, account: usize) -> &str {
        &self.accounts[account].name
    }

    /// Charges all limits, or none of them.
    pub(super) fn admit(
        &mut self,
        index: usize,
        model: &str,
        bill: Bill,
        now: Timestamp,
    ) -> Result<Ticket, Refusal> {
        let account = &mut self.accounts[index];
        for line in &mut account.lines {
            line.pass(now);
        }
        // Who is over several is told of the one that takes longest.
        let over = account
            .lines
            .iter_mut()
            .filter(|line| line.applies_to(model))
            .map(|line| (demand(line, bill), line))
            .filter(|(cost, line)| !line.fits(*cost))
            .max_by_key(|(cost, line)| line.wait(*cost).unwrap_or(Duration::MAX));
        if let Some((requested, line)) = over {
            let wait = line.wait(requested);
            if line.told == Told::AtRefusal {
                line.said = line.limit.amount;
            }
            let refusal = Refusal {
                account: account.name.clone(),
                counted: line.limit.counted,
                period: line.limit.period,
                used: line.used(),
                requested,
                limit: (line.told != Told::Never).then_some(line.limit.amount),
                wait,
            };
            self.record.refused.push(Refused {
                at: now,
                account: refusal.account.clone(),
                counted: refusal.counted,
                limit: line.limit.amount,
                used: refusal.used,
                requested,
                wait,
            });
            self.record.hammered += u64::from(now < account.told_to_wait_until);
            let until = now.saturating_add(wait.unwrap_or_default());
            account.told_to_wait_until = account.told_to_wait_until.max(until);
            return Err(refusal);
        }
        for line in account.lines.iter_mut().filter(|line| line.applies_to(model)) {
            line.charge(bill.units(line.limit.counted));
        }
        self.record.admitted += 1;
        Ok(Ticket { account: index, model: model.to_owned(), bill, at: now })
    }

    /// Corrects what a call was charged to what it used.
    pub(super) fn settle(&mut self, ticket: &Ticket, used: Bill, now: Timestamp) {
        let account = &mut self.accounts[ticket.account];
        for line in account.lines.iter_mut().filter(|line| line.applies_to(&ticket.model)) {
            line.pass(now);
            let charged = ticket.bill.units(line.limit.counted);
            let used = used.units(line.limit.counted);
            line.charge(used.saturating_sub(charged));
            line.give_back(charged.saturating_sub(used), ticket.at);
        }
    }

    pub(super) fn said(&mut self, account: usize, model: &str, now: Timestamp) -> Vec<Said> {
        let lines = self.accounts[account].lines.iter_mut().filter(|line| line.applies_to(model));
        lines
            .map(|line| {
                line.pass(now);
                Said {
                    counted: line.limit.counted,
                    limit: line.said,
                    remaining: line.said_remaining(),
                    full_in: line.until_full(),
                }
            })
            .collect()
    }

    pub(super) fn change_limit(
        &mut self,
        account: &str,
        index: usize,
        amount: u64,
        told: Told,
        now: Timestamp,
    ) {
        let account = self.accounts.iter_mut().find(|own| own.name == account);
        let line = account.and_then(|account| account.lines.get_mut(index));
        let line = line.expect("the caller names a limit that was declared");
        line.pass(now);
        line.limit.amount = amount;
        line.told = told;
        if told == Told::AtOnce {
            line.said = amount;
        }
    }

    pub(super) fn record(&mut self, now: Timestamp) -> Record {
        let mut record = self.record.clone();
        for account in &mut self.accounts {
            for line in &mut account.lines {
                line.pass(now);
                record.limits.push(LimitRecord {
                    account: account.name.clone(),
                    counted: line.limit.counted,
                    model: line.limit.model.clone(),
                    limit: line.limit.amount,
                    period: line.limit.period,
                    used: line.used(),
                    peak: line.peak,
                    spent: line.spent,
                    by_second: line.by_second.clone(),
                });
            }
        }
        record
    }
}

impl Account {
    pub(super) fn new(
        name: String,
        keys: Vec<String>,
        limits: Vec<ProviderLimit>,
        now: Timestamp,
    ) -> Self {
        let lines = limits.into_iter().map(|limit| Line::new(limit, now)).collect();
        Self { name, keys, lines, told_to_wait_until: Timestamp::MIN }
    }
}

/// The room that a call needs to be let in: where nothing is charged yet, one unit, since a limit
/// that is used up lets nobody in.
fn demand(line: &Line, bill: Bill) -> u64 {
    bill.units(line.limit.counted).max(1)
}
