//! Answers that serve more than one request: a memo of what a service has said.
//!
//! A model that is asked the same twice answers twice, and both cost quota. [`AnswerCacheLayer`]
//! stands before the layers that limit: a question that was answered before is answered from
//! memory, and one that is being asked is asked once, its answer going to all as it comes.
//!
//! It is no HTTP cache. It keeps the answers to `POST` requests too, which those may not do, so it
//! looks only at the requests that it is told to; it does not validate, and no response can make it
//! keep what it would not. Where HTTP's own rules are wanted, use an HTTP cache.
//!
//! # What is kept
//!
//! | | |
//! |---|---|
//! | kept | a whole answer with a 2xx status, up to a size, for a [time](AnswerCacheLayer::ttl) that the response's `max-age` can only shorten |
//! | given to the one who asked | every answer, as it comes |
//! | shared with those who wait, not kept | one that is too large, breaks off, or differs in length from what it said; a stream of events that has an `event: error`, ends in the middle of an event, or is compressed; gRPC-Web, whose status stands in the body; what [you do not want](AnswerCacheLayer::keep_if) |
//! | neither shared nor kept | an error; any other status; `206` and `Content-Range`; a gRPC status that is not 0; `no-store`, `private`, `no-cache`; `Set-Cookie`; a `Vary` by what the key does not hold |
//! | not even looked up | a request with `no-store`, `Range`, a condition, `Last-Event-ID` or `Upgrade`; one whose body is too long, breaks off, has trailers, or says that it is JSON and could be read in two ways |
//!
//! A body whose end is the end of the connection, without a length, cannot be told from one that
//! was cut there: it is kept, unless it is a stream of events that was cut in the middle of one.
//!
//! # Whose answer it is
//!
//! By default all [credentials](Credentials) of a request are part of its key, so that no tenant
//! has the answer to another. Say [who is one tenant](AnswerCacheLayer::key) where that is known
//! better; [`shared`](AnswerCacheLayer::shared) is for answers that do not depend on who asks.
//!
//! # What a caller is told
//!
//! `Cache-Status` (RFC 9211), after those of caches further in: `hit` with the seconds for which it
//! is fresh, or that there was none for who wanted nothing else (`detail=not-cached`), or why it
//! went on (`fwd=miss`, `stale`, `request`, `bypass`), with `collapsed` if another's request served
//! it, and `stored` if the answer was kept by the time that its head went out: one that was there
//! as a whole, in this process. Of all others it is not known then. `Age` counts what the response
//! brought and the time that it took. What was true of one response only is taken away: fields of
//! rate limits, `Retry-After`, request ids.
//!
//! # Elsewhere
//!
//! Answers are kept where an [`AnswerStore`] keeps them: in this process, where each instance asks
//! once ([`MemoryStore`]), or on a server ([`redis`], with that feature), where all instances
//! together do. A store of your own takes answers as bytes by [`Answer::encode`].
//!
//! The [guide](crate::guide::caching) has what goes wrong.

mod age;
mod answer;
mod body;
mod broken;
mod canonical;
mod codec;
mod complete;
mod directives;
mod drive;
mod exchange;
mod flight;
mod found;
mod key;
mod layer;
mod memory;
#[cfg(feature = "redis")]
pub mod redis;
mod service;
mod settings;
mod status;
mod store;
mod turn;

pub use self::{
    answer::Answer,
    body::AnswerBody,
    broken::BrokenAnswer,
    canonical::{NotCanonical, canonical_json},
    codec::MalformedAnswer,
    directives::FreshFor,
    found::Found,
    key::{AnswerKey, Credentials},
    layer::AnswerCacheLayer,
    memory::MemoryStore,
    service::{AnswerCache, AnswerFuture},
    store::{AnswerStore, StoreSize},
    turn::{Asking, Claim, Turn, TurnEnd},
};

/// A request's body after the cache has looked at it.
pub type RequestBody<B> = crate::http::PeekedBody<B>;
