//! How many places a shard has for so many entries, and where each of them belongs.

/// Shards of so few homes are kept a quarter empty: nearly all entries then stand among the first
/// places that are looked at. In larger ones the memory matters more.
const SMALL: usize = 256;

/// The entries that so many homes may have.
pub(super) const fn entries_for(homes: usize) -> usize {
    if homes <= SMALL { homes - homes / 4 } else { homes - homes / 8 }
}

/// The homes that may have so many entries.
pub(super) const fn homes_for(entries: usize) -> usize {
    if entries <= SMALL / 4 * 3 {
        return entries + entries.div_ceil(3);
    }
    let homes = entries + entries.div_ceil(7);
    if homes <= SMALL { SMALL + 1 } else { homes }
}

/// Room behind the homes for the entries that are pushed on: nearly always enough.
pub(super) const fn tail_of(homes: usize) -> usize {
    homes / 32 + 4
}

/// The home of a hash: its upper half, scaled. So homes have the order of hashes.
#[inline(always)]
pub(super) const fn home(hash: u64, homes: usize) -> usize {
    (((hash >> 32) * homes as u64) >> 32) as usize
}
