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
    /// The key is on the denied list. 403, `PERMISSION_DENIED`.
    Denied,
    /// The request has no key. 400, `INVALID_ARGUMENT`.
    NoKey,
}

impl Cause {
    /// What a person is told by default, where there is no title that says it.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::OverLimit => "rate limited",
            Self::Backend => "the rate limit could not be checked",
            Self::Denied => "the caller is denied",
            Self::NoKey => "the request does not say whom to count it against",
        }
    }
}

impl From<&Rejection> for Cause {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::OverLimit(_) => Self::OverLimit,
            Rejection::Backend(_) => Self::Backend,
            Rejection::Denied => Self::Denied,
            Rejection::NoKey => Self::NoKey,
        }
    }
}

/// A value for each cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByCause<T> {
    over_limit: T,
    backend: T,
    denied: T,
    no_key: T,
}

impl ByCause<StatusCode> {
    pub(super) const STATUSES: Self = Self {
        over_limit: StatusCode::TOO_MANY_REQUESTS,
        backend: StatusCode::SERVICE_UNAVAILABLE,
        denied: StatusCode::FORBIDDEN,
        no_key: StatusCode::BAD_REQUEST,
    };
}

impl ByCause<GrpcCode> {
    pub(super) const GRPC_CODES: Self = Self {
        over_limit: GrpcCode::ResourceExhausted,
        backend: GrpcCode::Unavailable,
        denied: GrpcCode::PermissionDenied,
        no_key: GrpcCode::InvalidArgument,
    };
}

impl<T: Copy> ByCause<T> {
    pub(super) const fn get(&self, cause: Cause) -> T {
        match cause {
            Cause::OverLimit => self.over_limit,
            Cause::Backend => self.backend,
            Cause::Denied => self.denied,
            Cause::NoKey => self.no_key,
        }
    }

    pub(super) fn set(&mut self, cause: Cause, value: T) {
        *match cause {
            Cause::OverLimit => &mut self.over_limit,
            Cause::Backend => &mut self.backend,
            Cause::Denied => &mut self.denied,
            Cause::NoKey => &mut self.no_key,
        } = value;
    }
}
