use std::collections::VecDeque;

use super::{block::Block, terms::Terms};

/// What one instance holds of one key, oldest first.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    all: VecDeque<Block>,
    /// Units that were lost with blocks that are not here any more, since somebody counted them.
    lost: u64,
}

impl Blocks {
    /// Drops what is used up or expired, and gives what can be spent of the first block, until
    /// when, and what can be spent of all.
    pub(super) fn look(&mut self, terms: &Terms, now: u64) -> (u64, u64, u64) {
        while let Some(first) = self.all.front_mut() {
            let ready = first.ready(terms, now);
            if first.left() > 0 {
                let until = first.expiry(terms);
                return (ready, until, self.all.iter_mut().map(|it| it.ready(terms, now)).sum());
            }
            self.drop_first();
        }
        (0, 0, 0)
    }

    /// Takes what was spent of the first block.
    pub(super) fn spend_first(&mut self, units: u64) {
        if let Some(first) = self.all.front_mut() {
            first.spend(units);
        }
    }

    /// Spends up to `units` of what is released and good, oldest first. Gives what is lacking, and
    /// when the first of what was spent would have expired.
    pub(super) fn spend(&mut self, terms: &Terms, now: u64, units: u64) -> (u64, u64) {
        let (mut lacking, mut expiry) = (units, u64::MAX);
        for block in &mut self.all {
            let part = block.ready(terms, now).min(lacking);
            if part > 0 {
                expiry = expiry.min(block.expiry(terms));
                block.spend(part);
                lacking -= part;
            }
        }
        (lacking, expiry)
    }

    /// When a block covers `cost`, if one does without another call.
    pub(super) fn covers_at(&self, terms: &Terms, cost: u64) -> Option<u64> {
        self.all.iter().filter_map(|block| block.covers_at(terms, cost)).min()
    }

    pub(super) fn draw(&mut self, block: Block) {
        if self.all.len() >= MOST {
            self.drop_first();
        }
        self.all.push_back(block);
    }

    /// Takes back `units` that expire at `expiry`.
    pub(super) fn give_back(&mut self, terms: &Terms, units: u64, expiry: u64) {
        let block = Block::returned(terms, units, expiry);
        if let Some(first) = self.all.front_mut().filter(|first| first.is_of_the_same(&block)) {
            first.add(units);
        } else if self.all.len() < MOST {
            self.all.push_front(block);
        } else {
            self.lost += units;
        }
    }

    fn drop_first(&mut self) {
        if let Some(mut first) = self.all.pop_front() {
            self.lost += first.take_expired() + first.left();
        }
    }

    /// The units that were lost since this was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        let expired: u64 = self.all.iter_mut().map(Block::take_expired).sum();
        std::mem::take(&mut self.lost) + expired
    }

    /// The units that are lost if this is dropped.
    pub(super) fn left(&self) -> u64 {
        self.all.iter().map(Block::left).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Blocks that are held at most, those that came back included.
const MOST: usize = 16;
