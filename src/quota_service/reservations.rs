use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    fmt,
    hash::{BuildHasher as _, RandomState},
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::verdict::Taken;
use crate::{error::BackendError, time};

/// What a reservation is known by: 128 bits that cannot be guessed.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReservationId(u128);

/// Why a reservation could not be settled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SettleError {
    /// There is none of this name: it was settled, has expired, or was made by another process.
    Unknown,
    /// The backend failed. If it is known that nothing was corrected
    /// ([`Unreachable`](crate::BackendErrorKind::Unreachable),
    /// [`CircuitOpen`](crate::BackendErrorKind::CircuitOpen),
    /// [`Unauthorized`](crate::BackendErrorKind::Unauthorized)), the reservation is open as before
    /// and can be settled again. Otherwise it is closed: the correction is lost, or not.
    Backend(BackendError),
}

/// The reservations that are open.
pub(super) struct Reservations {
    seed: [u8; 32],
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    made: u64,
    /// The places of those that are not open yet.
    promised: usize,
    open: HashMap<ReservationId, Open>,
    /// The memory that they take, about.
    bytes: usize,
    /// Those that are open, by when they expire.
    ends: BTreeSet<(Instant, ReservationId)>,
}

/// One that is open.
pub(super) struct Open {
    pub(super) taken: Taken,
    pub(super) expires: Instant,
}

/// A place for a reservation that is being decided on. Dropped, it is free again.
pub(super) struct Place<'a>(&'a Reservations);

impl Place<'_> {
    /// Keeps what was taken until it is settled, or expires and counts in full.
    pub(super) fn open(self, taken: Taken, lasting: Duration) -> ReservationId {
        if taken.parts.is_empty() {
            return self.0.of_nothing();
        }
        let expires = time::timer_now() + lasting;
        let mut table = self.0.table();
        table.made += 1;
        let id = self.0.id(table.made);
        table.put(id, Open { taken, expires });
        id
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.table().promised -= 1;
    }
}

impl Table {
    fn put(&mut self, id: ReservationId, open: Open) {
        self.ends.insert((open.expires, id));
        self.bytes += open.taken.bytes();
        self.open.insert(id, open);
    }
}

impl Reservations {
    /// The most reservations that are open at one time.
    pub(super) const MAX_OPEN: usize = 100_000;
    /// The most memory that they take.
    const MAX_BYTES: usize = 64 * 1024 * 1024;

    pub(super) fn new() -> Self {
        // The standard library's hashers have keys from the operating system.
        let mut seed = Sha256::new();
        for place in 0..4_u64 {
            seed.update(RandomState::new().hash_one(place).to_le_bytes());
        }
        Self { seed: seed.finalize().into(), table: Mutex::default() }
    }

    /// A place for one more, if there is room.
    pub(super) fn place(&self) -> Option<Place<'_>> {
        let mut table = self.table();
        let has_room =
            table.open.len() + table.promised < Self::MAX_OPEN && table.bytes < Self::MAX_BYTES;
        if !has_room {
            return None;
        }
        table.promised += 1;
        Some(Place(self))
    }

    fn id(&self, number: u64) -> ReservationId {
        let id = Sha256::new().chain_update(self.seed).chain_update(number.to_le_bytes());
        let id: [u8; 32] = id.finalize().into();
        let (id, _) = id.split_first_chunk().expect("a hash is longer than an identifier");
        ReservationId(u128::from_le_bytes(*id))
    }

    /// The reservation of all that were charged nothing: it is always open, and has no place.
    fn of_nothing(&self) -> ReservationId {
        self.id(0)
    }

    /// Takes a reservation out: nobody else can settle it any more.
    pub(super) fn close(&self, id: ReservationId) -> Option<Open> {
        if id == self.of_nothing() {
            return Some(Open { taken: Taken::default(), expires: time::timer_now() });
        }
        let mut table = self.table();
        let open = table.open.remove(&id)?;
        table.bytes -= open.taken.bytes();
        table.ends.remove(&(open.expires, id));
        Some(open)
    }

    /// Opens a reservation again that could not be settled, for what is left of it. It had a place,
    /// so none is asked for.
    pub(super) fn open_again(&self, id: ReservationId, open: Open) {
        if !open.taken.parts.is_empty() {
            self.table().put(id, open);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table().open.len()
    }

    /// The table without those that have expired.
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time::timer_now();
        while let Some(&(end, id)) = table.ends.first()
            && end <= now
        {
            table.ends.pop_first();
            if let Some(expired) = table.open.remove(&id) {
                table.bytes -= expired.taken.bytes();
            }
        }
        table
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who sees it could settle the reservation, so it is not shown.
impl fmt::Debug for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReservationId").finish_non_exhaustive()
    }
}

impl FromStr for ReservationId {
    type Err = SettleError;

    fn from_str(text: &str) -> Result<Self, SettleError> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = if is_hex { u128::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or(SettleError::Unknown)
    }
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str(
                "there is no such reservation: it was settled, has expired and counts in full, or \
                 was made by another quota server",
            ),
            Self::Backend(_) => f.write_str("the reservation could not be corrected"),
        }
    }
}

impl Error for SettleError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unknown => None,
            Self::Backend(error) => Some(error),
        }
    }
}
