use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future;
use pin_project_lite::pin_project;

use super::key::{KeyOf, Subject};
use crate::{key::Key, maybe_ready::MaybeReady};

/// Counts requests against several keys together: per user *and* route, say.
///
/// `keys` is a tuple of two to five keys. Their order matters: it is that of
/// [`Key::join`](crate::Key::join), by which joins cannot collide. One key that is
/// [`Denied`](Subject::Denied) denies the request; else one that is [`Exempt`](Subject::Exempt)
/// exempts it; else one that is [`Missing`](Subject::Missing) leaves it without a key.
///
/// Keys that are looked up are looked up at the same time. If all are known at once, so is the
/// join.
///
/// ```
/// use tower_quota::{Key, policy::join};
///
/// struct Request { user: u64, route: &'static str }
///
/// let user_and_route = join((
///     |request: &Request| Key::from(request.user),
///     |request: &Request| Key::from(request.route),
/// ));
/// # let _ = user_and_route;
/// ```
pub const fn join<K>(keys: K) -> Join<K> {
    Join(keys)
}

/// What [`join`] makes.
#[derive(Clone, Copy, Debug)]
pub struct Join<K>(K);

pin_project! {
    /// The future of [`Join`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct JoinFuture<F: Future> {
        #[pin]
        subjects: F,
        combine: fn(F::Output) -> Subject,
    }
}

impl<F: Future> Future for JoinFuture<F> {
    type Output = Subject;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Subject> {
        let this = self.project();
        this.subjects.poll(context).map(this.combine)
    }
}

macro_rules! join_tuples {
    ($($join:ident, $Join:ident: $($K:ident $k:ident),+;)+) => {$(
        impl<Req, $($K: KeyOf<Req>),+> KeyOf<Req> for Join<($($K,)+)> {
            type Future = JoinFuture<future::$Join<$(MaybeReady<$K::Future>),+>>;

            fn key_of(&self, request: &Req) -> MaybeReady<Self::Future> {
                let ($($k,)+) = &self.0;
                match ($($k.key_of(request).try_into_ready(),)+) {
                    ($(Ok($k),)+) => MaybeReady::ready(combine(&[$($k),+])),
                    ($($k,)+) => MaybeReady::pending(JoinFuture {
                        subjects: future::$join($(ready_or_not($k)),+),
                        combine: |($($k,)+)| combine(&[$($k),+]),
                    }),
                }
            }
        }
    )+};
}

join_tuples! {
    join, Join: A a, B b;
    join3, Join3: A a, B b, C c;
    join4, Join4: A a, B b, C c, D d;
    join5, Join5: A a, B b, C c, D d, E e;
}

/// What [`MaybeReady::try_into_ready`] took apart.
fn ready_or_not<F: Future>(subject: Result<F::Output, F>) -> MaybeReady<F> {
    subject.map_or_else(MaybeReady::pending, MaybeReady::ready)
}

fn combine(subjects: &[Subject]) -> Subject {
    for verdict in [Subject::Denied, Subject::Exempt, Subject::Missing] {
        if subjects.contains(&verdict) {
            return verdict;
        }
    }
    Subject::Counted(Key::join(subjects.iter().filter_map(|subject| match subject {
        Subject::Counted(key) => Some(key),
        _ => None,
    })))
}
