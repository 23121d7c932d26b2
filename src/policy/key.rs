use std::future::{Future, Ready};

use super::OnMissingKey;
use crate::{key::Key, maybe_ready::MaybeReady, rejection::Rejection};

/// What a request is to the limiter.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a service must know what to do with each")]
pub enum Subject {
    /// It is counted against this key.
    Counted(Key),
    /// It is refused whatever the quota: its caller is on the denied list.
    Denied,
    /// It passes without being counted: its caller is on the list of those that may.
    Exempt,
    /// It does not say whom to count it against: see [`OnMissingKey`](super::OnMissingKey).
    Missing,
}

impl Subject {
    /// The key that the request is counted against, `None` if it passes without being counted, or
    /// why it is refused.
    pub(crate) fn counted(self, on_missing_key: OnMissingKey) -> Result<Option<Key>, Rejection> {
        match (self, on_missing_key) {
            (Self::Counted(key), _) => Ok(Some(key)),
            (Self::Missing, OnMissingKey::Share) => Ok(Some(Key::anonymous())),
            (Self::Missing, OnMissingKey::Deny) => Err(Rejection::NoKey),
            (Self::Denied, _) => Err(Rejection::Denied),
            (Self::Missing | Self::Exempt, _) => Ok(None),
        }
    }
}

impl From<Key> for Subject {
    #[inline]
    fn from(key: Key) -> Self {
        Self::Counted(key)
    }
}

impl From<Option<Key>> for Subject {
    #[inline]
    fn from(key: Option<Key>) -> Self {
        key.map_or(Self::Missing, Self::Counted)
    }
}

/// Whom a request is counted against.
///
/// Closures are keys: `|request: &Request| Key::from(request.user_id)`; they return a [`Key`], an
/// `Option<Key>` or a [`Subject`]. [`AsyncKey`] takes those that have to look something up.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whom a `{Req}` is counted against",
    note = "write a closure `|request: &{Req}| -> Key` (or `Option<Key>`, `Subject`), with the request's type spelled out"
)]
pub trait KeyOf<Req> {
    /// The future of the subject, where it cannot be told at once.
    type Future: Future<Output = Subject>;

    /// The subject of `request`.
    fn key_of(&self, request: &Req) -> MaybeReady<Self::Future>;
}

impl<F, Req, T> KeyOf<Req> for F
where
    F: Fn(&Req) -> T,
    T: Into<Subject>,
{
    type Future = Ready<Subject>;

    #[inline]
    fn key_of(&self, request: &Req) -> MaybeReady<Self::Future> {
        MaybeReady::ready(self(request).into())
    }
}

/// Everything is counted together, under [`Key::GLOBAL`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Global;

impl<Req> KeyOf<Req> for Global {
    type Future = Ready<Subject>;

    #[inline]
    fn key_of(&self, _: &Req) -> MaybeReady<Self::Future> {
        MaybeReady::ready(Subject::Counted(Key::GLOBAL))
    }
}

/// A key that has to be looked up: a closure from the request to a future of the subject.
///
/// The future owns what it needs; it cannot borrow from the request, which waits beside it.
///
/// ```
/// use tower_quota::{Key, policy::AsyncKey};
///
/// struct Request { session: u64 }
/// # async fn user_of(session: u64) -> Option<u64> { Some(session) }
///
/// let key = AsyncKey::new(|request: &Request| {
///     let session = request.session;
///     async move { user_of(session).await.map(Key::from) }
/// });
/// # let _ = key;
/// ```
///
/// # Cancel safety
///
/// Nothing is charged until the key is known: dropping the response future before that is free.
#[derive(Clone, Copy, Debug)]
pub struct AsyncKey<F>(F);

impl<F> AsyncKey<F> {
    /// Keys requests by what the future of `look_up` comes to.
    pub const fn new(look_up: F) -> Self {
        Self(look_up)
    }
}

impl<F, Req, Fut> KeyOf<Req> for AsyncKey<F>
where
    F: Fn(&Req) -> Fut,
    Fut: Future,
    Fut::Output: Into<Subject>,
{
    type Future = IntoSubject<Fut>;

    fn key_of(&self, request: &Req) -> MaybeReady<Self::Future> {
        MaybeReady::pending(IntoSubject { future: self.0(request) })
    }
}

pin_project_lite::pin_project! {
    /// The future of [`AsyncKey`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct IntoSubject<F> {
        #[pin]
        future: F,
    }
}

impl<F> Future for IntoSubject<F>
where
    F: Future,
    F::Output: Into<Subject>,
{
    type Output = Subject;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Subject> {
        self.project().future.poll(context).map(Into::into)
    }
}
