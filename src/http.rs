//! Keys from HTTP requests, and answers for HTTP and gRPC servers.
//!
//! Whom a request is counted against: [`ClientAddr`] is its address, believed only as far as
//! proxies are trusted; [`header`], [`method`], [`path`] and [`extension`] are parts of it, which
//! [`join`](crate::policy::join) puts together.
//!
//! What its caller is told: [`TooManyRequests`] answers in HTTP or gRPC, whichever was asked in,
//! and tells every other caller how its quota stands. [`FieldStyle`] lists the forms of the header
//! fields, [`BodyFormat`] those of the body. [`RetryHint`] reads the `Retry-After` of other
//! servers.

mod answer;
mod body;
mod cause;
#[cfg(feature = "local")]
mod classifier;
mod client_addr;
mod fields;
mod forwarded;
mod grpc;
mod hops;
mod keys;
mod measured;
mod networks;
mod node;
#[cfg(any(feature = "cache", feature = "upstream"))]
mod peeked;
mod peer;
mod problem;
mod proxies;
mod retry_after;
#[cfg(feature = "local")]
mod slot_body;

#[cfg(feature = "local")]
pub use self::classifier::StatusClassifier;
#[cfg(feature = "deferred")]
pub(crate) use self::classifier::hinted_wait;
#[cfg(any(feature = "cache", feature = "upstream"))]
pub use self::peeked::PeekedBody;
#[cfg(feature = "local")]
pub use self::slot_body::{SlotBody, UntilBodyEnd};
pub use self::{
    answer::TooManyRequests,
    body::{EmptyBody, MakeBody, ProblemBody},
    cause::Cause,
    client_addr::ClientAddr,
    fields::{FieldStyle, FieldStyles, Partition, express_name},
    grpc::GrpcCode,
    keys::{ExtensionKey, HeaderKey, MethodKey, PathKey, extension, header, method, path},
    measured::{FromBody, MeasuredBody},
    networks::Networks,
    peer::PeerAddr,
    problem::BodyFormat,
    proxies::{OnUnknownClient, ProxyHeader, TrustedProxies},
    retry_after::RetryHint,
};
