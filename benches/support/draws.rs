//! Which keys are asked for, and in which order.

/// How the requests are spread over the keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Popularity {
    /// Each key as often as any other.
    Uniform,
    /// The nth key a nth as often as the first.
    Zipf,
}

/// Keys in the order in which they are asked for. As in a server, a key's bytes are at hand when it
/// is decided on: they lie in that order in memory.
pub(crate) struct Draws<K>(Box<[K]>);

/// A power of two, so that to begin anew costs nothing.
const COUNT: usize = 1 << 20;

impl<K> Draws<K> {
    pub(crate) fn new(keys: u64, popularity: Popularity, key: impl Fn(u64) -> K) -> Self {
        let mut random = SplitMix(keys);
        let sums = match popularity {
            Popularity::Uniform => Vec::new(),
            Popularity::Zipf => sums_of_shares(keys),
        };
        let mut draw = || match sums.last() {
            None => random.below(keys),
            Some(total) => {
                let at = random.unit() * total;
                (sums.partition_point(|sum| *sum <= at) as u64).min(keys - 1)
            }
        };
        Self((0..COUNT).map(|_| key(draw())).collect())
    }

    /// The key of an iteration of a thread. Threads begin far from each other.
    #[inline]
    pub(crate) fn at(&self, thread: u64, iteration: u64) -> &K {
        let at = iteration.wrapping_add(thread * (COUNT as u64 / 3));
        &self.0[at as usize & (COUNT - 1)]
    }
}

fn sums_of_shares(keys: u64) -> Vec<f64> {
    let mut sum = 0.0;
    let share_added = |rank| {
        sum += 1.0 / rank as f64;
        sum
    };
    (1..=keys).map(share_added).collect()
}

/// Steele, Lea and Flood's generator: the same draws in each run.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From zero to one.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
