mod notice;
#[cfg(feature = "redis")]
mod shared;
#[cfg(feature = "redis")]
mod shares;
mod stops;
mod testimony;
#[cfg(feature = "redis")]
mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};

pub(super) use self::notice::LastStop;
pub use self::notice::{KnownLimit, Notice};
use self::stops::ToldStop;
use super::observation::{Class, Stop};
use crate::{
    error::BackendErrorKind,
    time::{Clock, TimerClock, Timestamp},
};

/// What everybody must know who uses an account: that the provider said to stop, and how its limits
/// have changed.
///
/// What is posted here counts at once for all clones in this process; a board that is
/// [shared](Self::shared) passes it on to all instances by a server. Reading it costs no trip.
///
/// # What it promises
///
/// A stop is never shortened, whoever posts, in whatever order: of those that were told since
/// somebody [ended](Self::resume) them by hand the longest holds. Of two limits the one that was
/// told later holds, or the lower if that was in one moment; one that was told
/// [by hand](super::Account::tell) holds from its moment on. So what is posted twice, late or again
/// after an outage changes nothing. Which stop and which limit hold follows from all that was told,
/// and is the same in whatever order that came.
///
/// ```
/// use tower_quota::upstream::Board;
///
/// let board = Board::new();
/// assert!(board.notice("").stop.is_none());
/// ```
///
/// # Clone
///
/// A clone is a handle to the same board.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

struct Inner {
    clock: TimerClock,
    /// What was posted, by quota: of an account that has limits by model, a quota is a model.
    notices: watch::Sender<Notices>,
    /// Counts what was new.
    version: AtomicU64,
    /// Whether what others have posted was read once, or somebody has waited long enough for it.
    is_current: watch::Sender<bool>,
    /// Since when the server is not read, if it is not.
    outage: Mutex<Option<Outage>>,
    link: Option<Link>,
    /// What tenants have had of each quota, where other instances are told.
    #[cfg(feature = "redis")]
    shares: Option<shares::Table>,
}

/// That a board does not hear of what others post, nor they of what is posted here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Outage {
    /// Since when.
    pub since: Timestamp,
    /// What the server, or the way to it, says last.
    pub kind: BackendErrorKind,
}

/// How what is posted gets to other instances.
struct Link {
    posts: mpsc::UnboundedSender<Post>,
    /// Starts the task that carries it, once there is a runtime.
    start: OnceLock<()>,
    starter: Starter,
}

/// Starts the task if it can.
type Starter = Box<dyn Fn(&Arc<Inner>) -> bool + Send + Sync>;

pub(super) type Notices = BTreeMap<Box<str>, Notice>;

/// Something that is posted of a quota.
#[derive(Clone, Debug)]
enum Post {
    Stop {
        quota: Box<str>,
        stop: ToldStop,
    },
    Limit {
        quota: Box<str>,
        limit: KnownLimit,
    },
    Resume {
        quota: Box<str>,
        at: Timestamp,
    },
    /// After this stop something went well that was sent then.
    WentWell {
        quota: Box<str>,
        stop: u64,
        at: Timestamp,
    },
}

impl Board {
    /// A board of this process.
    pub fn new() -> Self {
        Self::of(TimerClock::new(), None, true)
    }

    /// A board of this process for which it is this time now. From there its time goes on as that
    /// of tokio's timers: so a test sees what comes at a provider's midnight, with a time that is
    /// paused.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_quota::{time::Timestamp, upstream::{Account, Board, KnownLimit, Dimension, Profile}};
    ///
    /// let board = Board::starting_at(Timestamp::from_secs(1_793_516_400));
    /// let profile = Profile::ready("gemini").expect("it is ready-made");
    /// let account = Account::builder(profile).board(board).build()?;
    /// account.tell("", KnownLimit::new("requests", Dimension::Requests, 15))?;
    /// let told = account.notice("").limits[0].told;
    /// assert!(told.saturating_since(Timestamp::from_secs(1_793_516_400)) < Duration::from_secs(60));
    /// # Ok::<(), tower_quota::ConfigError>(())
    /// ```
    pub fn starting_at(now: Timestamp) -> Self {
        Self::of(TimerClock::starting_at(now), None, true)
    }

    fn of(clock: TimerClock, link: Option<Link>, is_current: bool) -> Self {
        let (notices, is_current) = (watch::Sender::default(), watch::Sender::new(is_current));
        let version = AtomicU64::new(0);
        Self(Arc::new(Inner {
            clock,
            notices,
            version,
            is_current,
            outage: Mutex::default(),
            #[cfg(feature = "redis")]
            shares: link.is_some().then(shares::Table::default),
            link,
        }))
    }

    /// What is known of a quota: of an account without limits by model, the quota is `""`.
    ///
    /// A stop that is over is not told.
    pub fn notice(&self, quota: &str) -> Notice {
        self.start();
        let now = self.now();
        let notice = self.0.notices.borrow().get(quota).cloned().unwrap_or_default();
        notice.at(now)
    }

    /// Stops the quota, unless a longer stop holds. [`Class::NeverAdmissible`] stops nothing: it is
    /// about one request.
    pub fn post_stop(&self, quota: &str, stop: Stop) {
        if stop.class != Class::NeverAdmissible {
            let stop = ToldStop::new(stop, self.now());
            self.post(Post::Stop { quota: quota.into(), stop });
        }
    }

    /// Notes a limit, unless one is known that was told later.
    pub fn post_limit(&self, quota: &str, limit: KnownLimit) {
        self.post(Post::Limit { quota: quota.into(), limit });
    }

    /// Ends a stop by hand, as after a bill was paid. A stop that is told later holds again.
    pub fn resume(&self, quota: &str) {
        self.post(Post::Resume { quota: quota.into(), at: self.now() });
    }

    /// Notes that after this stop something went well that was sent then.
    pub(super) fn post_went_well(&self, quota: &str, stop: u64, at: Timestamp) {
        self.post(Post::WentWell { quota: quota.into(), stop, at });
    }

    /// Whether it is cut off from the other instances, and since when: the server is away, or does
    /// not let it read. What is known stays known then, and what is posted here is posted there
    /// when it is back. `None` of a board of this process.
    ///
    /// ```
    /// use tower_quota::upstream::Board;
    ///
    /// assert_eq!(Board::new().outage(), None);
    /// ```
    pub fn outage(&self) -> Option<Outage> {
        *self.0.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The board's time.
    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The stop that holds.
    pub(super) fn stop(&self, quota: &str) -> Option<Stop> {
        let now = self.now();
        self.0.notices.borrow().get(quota).and_then(|notice| notice.holding(now)).cloned()
    }

    /// When the overload was told that was the last stop of a quota; `None` if it was none, or is
    /// over for so long that it says nothing any more.
    pub(super) fn overload(&self, quota: &str) -> Option<Timestamp> {
        let now = self.now();
        self.0.notices.borrow().get(quota).and_then(|notice| notice.overload(now))
    }

    /// A number that is another when anything is new.
    pub(super) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Sees what is posted from now on.
    pub(super) fn changes(&self) -> watch::Receiver<Notices> {
        self.0.notices.subscribe()
    }

    /// Waits until what others have posted is known, but not for long, and only at the start: who
    /// cannot ask goes on with what is known here, and so do all who come after.
    pub(super) fn current(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut is_current = self.0.is_current.subscribe();
        if !*is_current.borrow() {
            self.start();
        }
        let inner = Arc::clone(&self.0);
        async move {
            if !*is_current.borrow() {
                let read = is_current.wait_for(|is_current| *is_current);
                if tokio::time::timeout(FIRST_READ, read).await.is_err() {
                    inner.is_current.send_replace(true);
                }
            }
        }
    }

    fn post(&self, post: Post) {
        let is_new = self.0.merge([post.clone()]);
        if is_new && let Some(link) = &self.0.link {
            self.start();
            // The task that reads this ends with the board.
            drop(link.posts.send(post));
        }
    }

    fn start(&self) {
        if let Some(link) = &self.0.link
            && link.start.get().is_none()
            && (link.starter)(&self.0)
        {
            link.start.get_or_init(|| ());
        }
    }
}

impl Inner {
    /// Notes that the server was read, or what it or the way to it said.
    #[cfg(feature = "redis")]
    fn note(&self, read: Result<(), BackendErrorKind>) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let since = outage.map_or_else(|| self.clock.now(), |outage| outage.since);
        *outage = read.err().map(|kind| Outage { since, kind });
    }

    /// Takes in what was posted, and says whether anything of it is new.
    fn merge(&self, posts: impl IntoIterator<Item = Post>) -> bool {
        let mut is_new = false;
        self.notices.send_if_modified(|notices| {
            let mut is_change = false;
            for post in posts {
                let quota = post.quota();
                let notice = match notices.get_mut(quota) {
                    Some(notice) => notice,
                    None => notices.entry(quota.into()).or_default(),
                };
                let news = notice.merge(post);
                is_new |= news.is_new;
                is_change |= news.is_change;
            }
            if is_change {
                self.version.fetch_add(1, Ordering::Release);
            }
            is_change
        });
        is_new
    }
}

impl Post {
    fn quota(&self) -> &str {
        match self {
            Self::Stop { quota, .. }
            | Self::Limit { quota, .. }
            | Self::Resume { quota, .. }
            | Self::WentWell { quota, .. } => quota,
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("notices", &*self.0.notices.borrow())
            .field("is_shared", &self.0.link.is_some())
            .finish()
    }
}

/// The quota of an account without limits by model, and of what stops all of it.
pub(super) const ALL: &str = "";

/// How long a first request waits for what others have posted.
const FIRST_READ: Duration = Duration::from_secs(1);
