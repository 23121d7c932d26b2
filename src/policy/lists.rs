use std::{
    collections::HashSet,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::key::{KeyOf, Subject};
use crate::{key::Key, maybe_ready::MaybeReady};

/// A key with two lists: of those that pass without being counted, and of those that are refused.
///
/// Whoever is on both is refused. [`http::ClientAddr`](crate::http::ClientAddr) has lists of whole
/// networks.
///
/// ```
/// use tower_quota::{Key, policy::Listed};
///
/// struct Request { user: u64 }
///
/// let key = Listed::new(|request: &Request| Key::from(request.user))
///     .exempt([Key::from(1), Key::from(2)])
///     .denied([Key::from(666)]);
/// # let _ = key;
/// ```
#[derive(Clone)]
pub struct Listed<K> {
    key: K,
    /// Shared: a layer's policy is cloned with each of its services.
    lists: Arc<Lists>,
}

/// Sets with the standard library's randomly keyed hash. An API key is looked up by it, so how long
/// that takes tells nothing of how much of a listed one was guessed: only equal keys, or equal
/// hashes that nobody can aim for, are compared byte by byte. It need not be in constant time.
#[derive(Clone, Default)]
struct Lists {
    exempt: HashSet<Key>,
    denied: HashSet<Key>,
}

impl<K> Listed<K> {
    /// `key` with lists that are empty.
    pub fn new(key: K) -> Self {
        Self { key, lists: Arc::default() }
    }

    /// These keys, too, pass without being counted.
    ///
    /// A secret is found whether it is listed as [`Key::secret`] or as [`Key::new`].
    #[must_use]
    pub fn exempt(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        Arc::make_mut(&mut self.lists).exempt.extend(keys);
        self
    }

    /// These keys, too, are refused.
    #[must_use]
    pub fn denied(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        Arc::make_mut(&mut self.lists).denied.extend(keys);
        self
    }
}

impl<K: KeyOf<Req>, Req> KeyOf<Req> for Listed<K> {
    type Future = ListedFuture<K::Future>;

    fn key_of(&self, request: &Req) -> MaybeReady<Self::Future> {
        match self.key.key_of(request).try_into_ready() {
            Ok(subject) => MaybeReady::ready(self.lists.judge(subject)),
            Err(future) => {
                MaybeReady::pending(ListedFuture { future, lists: Arc::clone(&self.lists) })
            }
        }
    }
}

/// Shows how many keys are listed, but none: a secret may have been listed as plain text.
impl<K: fmt::Debug> fmt::Debug for Listed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed")
            .field("key", &self.key)
            .field("exempt", &self.lists.exempt.len())
            .field("denied", &self.lists.denied.len())
            .finish()
    }
}

impl Lists {
    fn judge(&self, subject: Subject) -> Subject {
        match subject {
            Subject::Counted(key) if self.denied.contains(&key) => Subject::Denied,
            Subject::Counted(key) if self.exempt.contains(&key) => Subject::Exempt,
            other => other,
        }
    }
}

pin_project! {
    /// The future of [`Listed`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ListedFuture<F> {
        #[pin]
        future: F,
        lists: Arc<Lists>,
    }
}

impl<F: Future<Output = Subject>> Future for ListedFuture<F> {
    type Output = Subject;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Subject> {
        let this = self.project();
        this.future.poll(context).map(|subject| this.lists.judge(subject))
    }
}

impl<F> fmt::Debug for ListedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedFuture").finish_non_exhaustive()
    }
}
