//! State on a central [quota server](crate::guide::quota_service), shared by any number of
//! instances that need not reach its store.
//!
//! ```no_run
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_quota::{PolicyName, Quota, TokenBucketLayer, algorithm::{Portion, TokenBucket}};
//! use tower_quota::backend::{GuardedBuilder, RemoteBuilder, guarded::Fallback};
//!
//! let remote = RemoteBuilder::new("http://quota.internal:8080", PolicyName::from_static("login"))?
//!     .token(&std::env::var("QUOTA_TOKEN")?)?
//!     .build();
//!
//! // Should the server fail, each of at most four instances decides by a quarter of the limit.
//! let backend = GuardedBuilder::new(Fallback::LocalShare(Portion::of(4)?)).build(remote);
//! let limit = Quota::per_second(100);
//! backend.check(&TokenBucket::new(limit)).await?;
//! let layer = TokenBucketLayer::new(limit).backend(backend);
//! # let _ = layer;
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! A decision is one request to the server. The limit travels with it, so it is the layer's own,
//! and everything that a backend of this process does is done there: the server decides by the same
//! function, and by its own clock. It passes the conformance suite.
//!
//! (Where the *server* is to know the limits, its callers ask by descriptors instead: see
//! [`quota_service`](crate::guide::quota_service).)
//!
//! - Keys do not leave this process: the server knows them by a hash. Who can read the server can
//!   try out addresses or short keys until one fits.
//! - What was perhaps executed is never repeated: it counts as charged. See
//!   [`BackendErrorKind::TimedOut`].
//! - The server must be told to be a [store](crate::quota_service::http::QuotaRouter::store).
//! - What the *server* decides by a guard of its own, while its store is gone, is settled in the
//!   store.
//!
//! Each decision travels by itself. Where there are many at a time, [`Redis`](super::redis) puts
//! those together that wait.

mod send;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use http::{
    HeaderValue, Method, Request, Response, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, InvalidHeaderValue},
    uri::InvalidUri,
};
use sha2::{Digest as _, Sha256};

use self::send::{Body, Sender};
use super::{
    Backend,
    wire::{self, DecideBody, DecisionForm, SettleBody},
};
use crate::{
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, PlanForm, Rule, SlidingCounter, SlidingLog,
        SlidingWindow, TokenBucket,
    },
    cost::Cost,
    decision::{Charge, Decision, Demand},
    error::{BackendError, BackendErrorKind},
    key::Key,
    maybe_ready::MaybeReady,
    name::PolicyName,
};

/// The states of keys, on a quota server. See the [module](self).
///
/// # Clone
///
/// A clone is a handle: it shares the connections. Any other with the same server and name, in this
/// process or another, has the same states.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    decide: Uri,
    settle: Uri,
    name: PolicyName,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    send: Sender,
}

/// The settings of a [`Remote`] backend.
#[derive(Clone)]
#[must_use = "a backend is made by `build`"]
pub struct RemoteBuilder {
    decide: Uri,
    settle: Uri,
    name: PolicyName,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    send: Option<Sender>,
}

impl RemoteBuilder {
    /// How long a call may take unless told otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);

    /// States on the quota server at `url`, under this name. All instances that share a limit have
    /// the same name for it; two limits that do not share must have two.
    ///
    /// # Errors
    ///
    /// The text is not a URL.
    pub fn new(url: &str, name: PolicyName) -> Result<Self, InvalidUri> {
        let url = url.trim_end_matches('/');
        Ok(Self {
            decide: format!("{url}/v1/store/decide").parse()?,
            settle: format!("{url}/v1/store/settle").parse()?,
            name,
            authorization: None,
            timeout: Self::DEFAULT_TIMEOUT,
            send: None,
        })
    }

    /// Sends `token` as `authorization: Bearer …`.
    ///
    /// # Errors
    ///
    /// It has characters that no header field can have.
    pub fn token(self, token: &str) -> Result<Self, InvalidHeaderValue> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        Ok(Self { authorization: Some(authorization), ..self })
    }

    /// How long a call may take, connecting included.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Has requests sent by `send` instead of the client of this crate, which speaks plain HTTP:
    /// for TLS, proxies, and whatever else a client of yours does. It must not send a request
    /// twice.
    pub fn send_by<F, R>(self, send: F) -> Self
    where
        F: Fn(Request<Bytes>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response<Bytes>, BackendError>> + Send + 'static,
    {
        let send: Sender = Arc::new(move |request| send(request).boxed());
        Self { send: Some(send), ..self }
    }

    /// The backend. Nothing is sent yet.
    pub fn build(self) -> Remote {
        let Self { decide, settle, name, authorization, timeout, send } = self;
        let send = send.unwrap_or_else(send::by_hyper);
        Remote { inner: Arc::new(Inner { decide, settle, name, authorization, timeout, send }) }
    }
}

impl Inner {
    /// What the server knows a key by. No two names have a hash in common.
    fn name_of(&self, key: &Key) -> String {
        let name = self.name.as_str();
        let length = (name.len() as u64).to_be_bytes();
        let hash = Sha256::new().chain_update(length).chain_update(name);
        format!("{:x}", hash.chain_update(key.as_bytes()).finalize())
    }

    async fn call(&self, url: &Uri, body: serde_json::Result<Vec<u8>>) -> Body {
        let mut request = Request::new(Bytes::from(body.map_err(malformed)?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        match tokio::time::timeout(self.timeout, (self.send)(request)).await {
            Ok(response) => send::accepted(response?),
            Err(elapsed) => Err(BackendError::new(BackendErrorKind::TimedOut).with_source(elapsed)),
        }
    }
}

fn malformed(error: serde_json::Error) -> BackendError {
    BackendError::new(BackendErrorKind::Malformed).with_source(error)
}

impl<A: Portable> Backend<A> for Remote {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let inner = Arc::clone(&self.inner);
        let body = serde_json::to_vec(&DecideBody {
            store: inner.name.to_string(),
            key: inner.name_of(key),
            plan: PlanForm::from(&algorithm.plan()),
            demand: demand.into(),
        });
        let call = async move {
            let answer = inner.call(&inner.decide, body).await?;
            serde_json::from_slice::<DecisionForm>(&answer).map(Into::into).map_err(malformed)
        };
        MaybeReady::pending(call.boxed())
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        if charge.cost == actual {
            return MaybeReady::ready(Ok(()));
        }
        let inner = Arc::clone(&self.inner);
        let body = serde_json::to_vec(&SettleBody {
            store: inner.name.to_string(),
            key: inner.name_of(key),
            plan: PlanForm::from(&algorithm.plan()),
            charge: charge.into(),
            actual: wire::cost_form(actual),
        });
        let call = async move { inner.call(&inner.settle, body).await.map(drop) };
        MaybeReady::pending(call.boxed())
    }

    fn answers_within(&self) -> Option<Duration> {
        Some(self.inner.timeout)
    }

    fn state_id(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.inner).addr())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { decide, name, .. } = &*self.inner;
        f.debug_struct("Remote")
            .field("server", &decide.authority().map(|authority| authority.host()))
            .field("name", name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RemoteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An algorithm that a quota server can execute: all of this crate but
/// [`LeaseBucket`](crate::algorithm::LeaseBucket).
///
/// It is sealed: the form in which algorithms travel may still change.
pub trait Portable: Algorithm + sealed::AsPlan {}

impl<A: Algorithm + sealed::AsPlan> Portable for A {}

#[doc(hidden)]
pub mod sealed {
    use crate::algorithm::Plan;

    pub trait AsPlan {
        /// The same algorithm as the only limit of a plan, or the plan that it is.
        fn plan(&self) -> Plan;
    }
}

impl sealed::AsPlan for Plan {
    fn plan(&self) -> Plan {
        self.clone()
    }
}

impl sealed::AsPlan for Rule {
    fn plan(&self) -> Plan {
        let plan = Plan::new().limit(PolicyName::DEFAULT, self.clone()).build();
        plan.expect("one limit in the first dimension is a plan")
    }
}

macro_rules! as_plan {
    ($($algorithm:ident)+) => {$(
        impl sealed::AsPlan for $algorithm {
            fn plan(&self) -> Plan {
                Rule::from(self.clone()).plan()
            }
        }
    )+};
}

as_plan! { FixedWindow LeakyBucket SlidingCounter SlidingLog SlidingWindow TokenBucket }
