use http::StatusCode;

use super::grpc::GrpcCode;
use crate::rejection::Rejection;

/// Names why a request was refused, where an answer is chosen by it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// The quota is used up. 429, `RESOURCE_EXHAUSTED`.
    OverLimit,
    /// The backend could not decide. 503, `UNAVAILABLE`.
    Backend,
    /// As many requests as may be in progress are. 429, `RESOURCE_EXHAUSTED`.
    Busy,
    /// The key is on the denied list. 403, `PERMISSION_DENIED`.
    Denied,
    /// The request has no key. 400, `INVALID_ARGUMENT`.
    NoKey,
    /// The other side is throttling, so the request was not sent there. 503, `UNAVAILABLE`.
    Throttled,
}

impl Cause {
    /// What a person is told by default, where there is no title that says it.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::OverLimit => "rate limited",
            Self::Backend => "the rate limit could not be checked",
            Self::Busy => "too many requests in progress",
            Self::Denied => "the caller is denied",
            Self::NoKey => "the request does not say whom to count it against",
            Self::Throttled => "the service behind this one is overloaded",
        }
    }
}

impl From<&Rejection> for Cause {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::OverLimit(_) => Self::OverLimit,
            Rejection::Backend(_) => Self::Backend,
            Rejection::Busy(_) => Self::Busy,
            Rejection::Denied => Self::Denied,
            Rejection::NoKey => Self::NoKey,
            Rejection::Throttled(_) => Self::Throttled,
        }
    }
}

/// A value for each cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByCause<T> {
    over_limit: T,
    backend: T,
    busy: T,
    denied: T,
    no_key: T,
    throttled: T,
}

impl ByCause<StatusCode> {
    pub(super) const STATUSES: Self = Self {
        over_limit: StatusCode::TOO_MANY_REQUESTS,
        backend: StatusCode::SERVICE_UNAVAILABLE,
        busy: StatusCode::TOO_MANY_REQUESTS,
        denied: StatusCode::FORBIDDEN,
        no_key: StatusCode::BAD_REQUEST,
        throttled: StatusCode::SERVICE_UNAVAILABLE,
    };
}

impl ByCause<GrpcCode> {
    pub(super) const GRPC_CODES: Self = Self {
        over_limit: GrpcCode::ResourceExhausted,
        backend: GrpcCode::Unavailable,
        busy: GrpcCode::ResourceExhausted,
        denied: GrpcCode::PermissionDenied,
        no_key: GrpcCode::InvalidArgument,
        throttled: GrpcCode::Unavailable,
    };
}

impl<T: Copy> ByCause<T> {
    pub(super) const fn get(&self, cause: Cause) -> T {
        match cause {
            Cause::OverLimit => self.over_limit,
            Cause::Backend => self.backend,
            Cause::Busy => self.busy,
            Cause::Denied => self.denied,
            Cause::NoKey => self.no_key,
            Cause::Throttled => self.throttled,
        }
    }

    pub(super) fn set(&mut self, cause: Cause, value: T) {
        *match cause {
            Cause::OverLimit => &mut self.over_limit,
            Cause::Backend => &mut self.backend,
            Cause::Busy => &mut self.busy,
            Cause::Denied => &mut self.denied,
            Cause::NoKey => &mut self.no_key,
            Cause::Throttled => &mut self.throttled,
        } = value;
    }
}
