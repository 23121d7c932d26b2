use std::{
    fmt,
    future::Ready,
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};

use http::{HeaderName, Request};

use crate::{
    error::ConfigError,
    key::Key,
    maybe_ready::MaybeReady,
    observe,
    policy::{KeyOf, Subject},
};

/// Keys requests by the value of a header: an API key, a session, a tenant.
///
/// The value is taken for a secret: it is counted, but never shown in logs or labels, unless it is
/// said to be [public](HeaderKey::public). Who the client is, it does not prove: put the layer
/// behind the authentication, or limit by address as well, lest a client be new with each request.
///
/// A request is [`Missing`](Subject::Missing) its key if it has no such header, an empty one, one
/// longer than 8 KiB (a key is kept in memory as long as it counts), or **more than one line of
/// it**: which of them the service believes is not known here, and a client could otherwise have
/// itself counted under one and be served under another.
///
/// ```
/// use tower_quota::http::header;
///
/// let api_key = header("x-api-key");
/// let tenant = header(http::HeaderName::from_static("x-tenant")).public();
/// ```
///
/// A text that is not the name of a header names one that no request has. That is reported, too,
/// and [`HeaderKey::check`] finds it.
///
/// **Not for the client's address.** `X-Forwarded-For`, `X-Real-IP`, `CF-Connecting-IP` and their
/// like say whatever the client wrote, unless it came by a proxy that replaces them: whoever writes
/// another address each time has no limit. [`ClientAddr::behind`](super::ClientAddr::behind)
/// believes them where a trusted proxy stands. A key of such a header is reported when the first
/// one is made, wherever it ends up, and [`HeaderKey::check`] finds it.
pub fn header(name: impl TryInto<HeaderName>) -> HeaderKey {
    let key = HeaderKey { name: name.try_into().ok(), public: false };
    if let Err(error) = key.check()
        && key.is_news()
    {
        observe::misused(&error);
    }
    key
}

/// Keys requests by their method: the nine of HTTP (RFC 9110 and 5789), and one key for all others,
/// which a client could invent without end.
pub const fn method() -> MethodKey {
    MethodKey(())
}

/// Keys requests by the path of their URI, as it was sent.
///
/// A client can invent paths without end, and each has a quota of its own: for routes with
/// parameters, and where unknown paths are answered, `axum::matched_path` is what is wanted.
pub const fn path() -> PathKey {
    PathKey(())
}

/// Keys requests by what an earlier layer left in their extensions: the user, the tenant.
///
/// `key` makes a [`Key`], an `Option<Key>` or a [`Subject`] of it. A request without the extension
/// is [`Missing`](Subject::Missing) its key.
///
/// ```
/// use tower_quota::{Key, http::extension, policy::Subject};
///
/// #[derive(Clone)]
/// struct User { id: u64, staff: bool }
///
/// let by_user = extension(|user: &User| Key::from(user.id));
/// let but_not_staff = extension(|user: &User| {
///     if user.staff { Subject::Exempt } else { Subject::Counted(user.id.into()) }
/// });
/// # let (_, _) = (by_user, but_not_staff);
/// ```
pub const fn extension<T, F, K>(key: F) -> ExtensionKey<T, F>
where
    F: Fn(&T) -> K,
    T: Send + Sync + 'static,
    K: Into<Subject>,
{
    ExtensionKey { key, extension: PhantomData }
}

/// What [`header`] makes.
#[derive(Clone, Debug)]
pub struct HeaderKey {
    /// None if what was given is no name.
    name: Option<HeaderName>,
    public: bool,
}

impl HeaderKey {
    /// Says that the value is no secret: it may be shown in logs and labels.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// Looks for a header that cannot be meant. [`header`] does it too, but can only report what it
    /// finds, once for each header: an `ERROR` event, or without feature `tracing` a line on
    /// standard error in debug builds.
    ///
    /// ```
    /// use tower_quota::http::header;
    ///
    /// assert!(header("x-api-key").check().is_ok());
    /// let error = header("x-forwarded-for").check().unwrap_err();
    /// assert!(error.to_string().contains("ClientAddr::behind"));
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::MalformedHeader`] if what was given is no name, and
    /// [`ConfigError::ForgeableHeader`] if it is one in which proxies tell the client's address. A
    /// name of your own for such a header is not known here.
    pub fn check(&self) -> Result<(), ConfigError> {
        match &self.name {
            None => Err(ConfigError::MalformedHeader),
            Some(name) if ADDRESS_HEADERS.contains(&name.as_str()) => {
                Err(ConfigError::ForgeableHeader { header: name.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Whether the first key of this address header, or of no header, is being made: one that is
    /// made for each request would fill the log.
    fn is_news(&self) -> bool {
        let Some(name) = &self.name else { return !TOLD_OF_NONE.swap(true, Ordering::Relaxed) };
        let place = ADDRESS_HEADERS.iter().position(|header| header == name);
        place.is_some_and(|place| !TOLD[place].swap(true, Ordering::Relaxed))
    }

    fn key<B>(&self, request: &Request<B>) -> Option<Key> {
        let mut lines = request.headers().get_all(self.name.as_ref()?).into_iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        if !(1..=LONGEST_VALUE).contains(&line.len()) {
            return None;
        }
        Some(if self.public { Key::new(line) } else { Key::secret(line) })
    }
}

impl<B> KeyOf<Request<B>> for HeaderKey {
    type Future = Ready<Subject>;

    fn key_of(&self, request: &Request<B>) -> MaybeReady<Self::Future> {
        MaybeReady::ready(self.key(request).into())
    }
}

/// What [`method`] makes.
#[derive(Clone, Copy, Debug)]
pub struct MethodKey(());

impl<B> KeyOf<Request<B>> for MethodKey {
    type Future = Ready<Subject>;

    fn key_of(&self, request: &Request<B>) -> MaybeReady<Self::Future> {
        let method = request.method();
        let name = if KNOWN_METHODS.contains(method) { method.as_str() } else { "other" };
        MaybeReady::ready(Key::new(name).into())
    }
}

/// What [`path`] makes.
#[derive(Clone, Copy, Debug)]
pub struct PathKey(());

impl<B> KeyOf<Request<B>> for PathKey {
    type Future = Ready<Subject>;

    fn key_of(&self, request: &Request<B>) -> MaybeReady<Self::Future> {
        MaybeReady::ready(Key::new(request.uri().path()).into())
    }
}

/// What [`extension`](extension()) makes.
pub struct ExtensionKey<T, F> {
    key: F,
    extension: PhantomData<fn(&T)>,
}

impl<T, F, K, B> KeyOf<Request<B>> for ExtensionKey<T, F>
where
    F: Fn(&T) -> K,
    T: Send + Sync + 'static,
    K: Into<Subject>,
{
    type Future = Ready<Subject>;

    fn key_of(&self, request: &Request<B>) -> MaybeReady<Self::Future> {
        let extension = request.extensions().get::<T>();
        MaybeReady::ready(extension.map_or(Subject::Missing, |value| (self.key)(value).into()))
    }
}

impl<T, F: Clone> Clone for ExtensionKey<T, F> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), extension: PhantomData }
    }
}

impl<T, F> fmt::Debug for ExtensionKey<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExtensionKey").field(&std::any::type_name::<T>()).finish()
    }
}

/// In bytes: as much as servers and proxies commonly allow to one header.
const LONGEST_VALUE: usize = 8 * 1024;

/// In which proxies and content networks tell the client's address.
const ADDRESS_HEADERS: [&str; 18] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-ip",
    "cloudfront-viewer-address",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "true-client-ip",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-forwarded-for",
    "x-original-forwarded-for",
    "x-real-ip",
];

/// Those of them that were reported.
static TOLD: [AtomicBool; ADDRESS_HEADERS.len()] =
    [const { AtomicBool::new(false) }; ADDRESS_HEADERS.len()];

/// Whether a name that is none was reported.
static TOLD_OF_NONE: AtomicBool = AtomicBool::new(false);

static KNOWN_METHODS: [http::Method; 9] = [
    http::Method::GET,
    http::Method::HEAD,
    http::Method::POST,
    http::Method::PUT,
    http::Method::DELETE,
    http::Method::CONNECT,
    http::Method::OPTIONS,
    http::Method::TRACE,
    http::Method::PATCH,
];
