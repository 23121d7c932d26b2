//! The server of the model: a table, and the way there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    channel::{mpsc, oneshot},
    future::BoxFuture,
    stream::BoxStream,
};
use shuttle::rand::{Rng, thread_rng};
use tokio::time::{Instant, sleep};

use super::TIMEOUT;
use crate::{
    backend::redis::slots::{
        SlotAnswer, SlotAsk, SlotJob, SlotPlace, SlotServer, SlotStanding, Turns,
    },
    error::{BackendError, BackendErrorKind},
    key::Key,
    sync::Mutex,
    time::timer_now,
};

/// Who holds slots of the one key, and who waits for some.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) holders: Vec<Entry>,
    pub(super) line: Vec<Entry>,
    /// Those who listen, by instance. What is said to one who does not is lost.
    listeners: BTreeMap<u64, mpsc::UnboundedSender<Vec<u64>>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The instance, and the number in it.
    who: (u64, u64),
    weight: u64,
    ends: Instant,
}

impl Table {
    /// What one is told, and which of its instance have got slots by it: as the script has it, for
    /// one key.
    fn carry_out(&mut self, instance: u64, ask: &SlotAsk) -> (SlotStanding, Vec<u64>) {
        let now = timer_now();
        self.holders.retain(|it| it.ends > now);
        self.line.retain(|it| it.ends > now);
        let who = (instance, ask.number);
        let most = ask.limits.per_key;
        if ask.job == SlotJob::Free {
            self.holders.retain(|it| it.who != who);
            self.line.retain(|it| it.who != who);
        }
        let told = self.hand_out(most);
        let entry = Entry { who, weight: ask.weight, ends: now + ask.lease };
        let has_room = self.in_use() + ask.weight <= most;
        let place = if let Some(held) = self.holders.iter_mut().find(|it| it.who == who) {
            held.ends = held.ends.max(entry.ends);
            SlotPlace::Held
        } else if let Some(waits) = self.line.iter_mut().find(|it| it.who == who) {
            waits.ends = waits.ends.max(entry.ends);
            SlotPlace::Waiting
        } else {
            match ask.job {
                SlotJob::Free | SlotJob::Look | SlotJob::Keep => SlotPlace::Gone,
                SlotJob::Reenter | SlotJob::Try | SlotJob::Join
                    if has_room && (ask.job == SlotJob::Reenter || self.line.is_empty()) =>
                {
                    self.holders.push(entry);
                    SlotPlace::Held
                }
                SlotJob::Join => {
                    self.line.push(entry);
                    SlotPlace::Waiting
                }
                SlotJob::Reenter | SlotJob::Try => SlotPlace::Refused,
            }
        };
        let mut own = Vec::new();
        for (of, number) in told {
            match self.listeners.get(&of) {
                _ if of == instance => own.push(number),
                // Who listens no more does not hear it.
                Some(listener) => drop(listener.unbounded_send(vec![number])),
                None => {}
            }
        }
        let (in_use, waiting) = (self.in_use(), self.line.len() as u64);
        let standing =
            SlotStanding { place, in_use, waiting, total_in_use: in_use, total_waiting: waiting };
        (standing, own)
    }

    fn hand_out(&mut self, most: u64) -> Vec<(u64, u64)> {
        let mut told = Vec::new();
        while let Some(first) = self.line.first()
            && self.in_use() + first.weight <= most
        {
            let first = self.line.remove(0);
            self.holders.push(first);
            told.push(first.who);
        }
        told
    }

    fn in_use(&self) -> u64 {
        self.holders.iter().map(|it| it.weight).sum()
    }
}

/// An instance's way to the table.
pub(super) struct Way {
    pub(super) table: Arc<Mutex<Table>>,
    pub(super) instance: u64,
    pub(super) turns: Arc<Turns>,
    /// One call of so many is lost, on the way there or back. Zero: none.
    pub(super) loses: u64,
}

async fn travel() {
    for _ in 0..thread_rng().gen_range(0..2) {
        sleep(Duration::from_millis(1)).await;
    }
}

fn is_one_of(many: u64) -> bool {
    many > 0 && thread_rng().gen_range(0..many) == 0
}

impl SlotServer for Way {
    /// A call that is sent goes its way, whether or not somebody waits for its answer.
    fn ask(&self, _: &Key, ask: SlotAsk) -> SlotAnswer {
        let (table, turns) = (Arc::clone(&self.table), Arc::clone(&self.turns));
        let (instance, loses) = (self.instance, self.loses);
        async move {
            let (says, answer) = oneshot::channel();
            tokio::spawn(async move {
                travel().await;
                let is_lost = is_one_of(loses);
                if is_lost && is_one_of(2) {
                    return sleep(TIMEOUT).await;
                }
                let (standing, own) = table.lock().carry_out(instance, &ask);
                travel().await;
                if is_lost {
                    return sleep(TIMEOUT).await;
                }
                if !own.is_empty() {
                    turns.add(own);
                }
                // Who has gone does not hear it.
                let _heard = says.send(standing);
            });
            answer.await.map_err(|_| BackendError::new(BackendErrorKind::TimedOut))
        }
        .boxed()
    }

    fn listen(&self) -> BoxFuture<'static, Option<BoxStream<'static, Vec<u64>>>> {
        let (table, instance) = (Arc::clone(&self.table), self.instance);
        async move {
            travel().await;
            let (tells, hears) = mpsc::unbounded();
            table.lock().listeners.insert(instance, tells);
            Some(hears.boxed())
        }
        .boxed()
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }
}
