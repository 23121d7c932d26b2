use std::collections::VecDeque;

use super::{block::Block, terms::Terms};

/// What one instance holds of one key, oldest first.
#[derive(Debug, Default)]
pub(super) struct Blocks(VecDeque<Block>);

impl Blocks {
    /// Drops what is used up or expired, and gives what can be spent of the first block, until
    /// when, and what can be spent of all.
    pub(super) fn look(&mut self, terms: &Terms, now: u64) -> (u64, u64, u64) {
        while let Some(first) = self.0.front_mut() {
            let ready = first.ready(terms, now);
            if first.left() > 0 {
                let until = first.expiry(terms);
                return (ready, until, self.0.iter_mut().map(|it| it.ready(terms, now)).sum());
            }
            self.0.pop_front();
        }
        (0, 0, 0)
    }

    /// Takes what was spent of the first block.
    pub(super) fn spend_first(&mut self, units: u64) {
        if let Some(first) = self.0.front_mut() {
            first.spend(units);
        }
    }

    /// Spends up to `units` of what is released and good, oldest first. Gives what is lacking, and
    /// when the first of what was spent would have expired.
    pub(super) fn spend(&mut self, terms: &Terms, now: u64, units: u64) -> (u64, u64) {
        let (mut lacking, mut expiry) = (units, u64::MAX);
        for block in &mut self.0 {
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
        self.0.iter().filter_map(|block| block.covers_at(terms, cost)).min()
    }

    pub(super) fn draw(&mut self, block: Block) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(block);
    }

    /// Takes back `units` that expire at `expiry`.
    pub(super) fn give_back(&mut self, terms: &Terms, units: u64, expiry: u64) {
        let block = Block::returned(terms, units, expiry);
        if let Some(first) = self.0.front_mut().filter(|first| first.is_of_the_same(&block)) {
            first.add(units);
        } else if self.0.len() < MOST {
            self.0.push_front(block);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Blocks that are held at most, those that came back included.
const MOST: usize = 16;
