/// The place of a waiter in its order, by which it is also known: no two are equal.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Rank {
    /// Nanoseconds: the least comes first.
    time: i64,
    /// Tells apart those of one time.
    turn: u64,
}

impl Rank {
    pub(super) const fn new(time: i64, turn: u64) -> Self {
        Self { time, turn }
    }
}
