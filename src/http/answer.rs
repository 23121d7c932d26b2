use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{
    body::{EmptyBody, MakeBody, ProblemBody},
    cause::{ByCause, Cause},
    fields::{
        FieldStyles, Fields, Partition, Standing,
        text::{insert, integer},
    },
    grpc::{Dialect, GrpcCode, GrpcRefusal, Violation},
    problem::{BodyFormat, Problem},
};
use crate::{
    decision::{RetryAfter, Snapshot},
    name::{Policies, QuotaPolicy},
    policy::Answer,
    rejection::{Denial, Rejection},
};

/// Answers for HTTP and gRPC servers: 429 with `Retry-After`, or `RESOURCE_EXHAUSTED`.
///
/// What a caller of HTTP is told when its quota is used up:
///
/// ```text
/// HTTP/1.1 429 Too Many Requests
/// Retry-After: 30
/// RateLimit: "default";r=0;t=30
/// RateLimit-Policy: "default";q=100;w=60
/// Cache-Control: no-store
/// Content-Type: application/problem+json
///
/// {"type":"https://iana.org/assignments/http-problem-types#quota-exceeded", …}
/// ```
///
/// Times are whole seconds, rounded up: who comes back then is let through, if nobody else came. A
/// request that costs more than the quota ever holds is told no time, and that it cannot succeed. A
/// [`Cause`] other than a used-up quota has a status of its own. On the responses of requests that
/// were let through stand the same two `RateLimit` fields.
///
/// A request whose content type is gRPC's or gRPC-Web's is answered in gRPC: status 200, the gRPC
/// status in the header section and no body ("trailers-only"). So one layer serves a router that
/// mounts both. In gRPC-Web it is the same: the frame of trailers, in which a body ends there, is
/// not written where there is no body. With feature `grpc` the answer has details, `RetryInfo` and
/// `QuotaFailure`.
///
/// # Cost
///
/// The fields on a response that was let through are one allocation (the standing; the policies are
/// written once for all responses), the older forms three (a number for each field), and what is to
/// be told is kept in one more until the response is there. That is if the response's header map
/// has room; where it is empty or full it takes two more to grow. A map that begins with a field of
/// the service's own has room for six. Without fields, by [`FieldStyles::NONE`], there is none.
///
/// # Body
///
/// `M` makes the response's body. The default needs a body that can be made of a `String`, as
/// `axum::body::Body` can. On a server of tonic alone the body is `tonic::body::Body`, which can
/// not: write [`TooManyRequests::new().empty_body()`](Self::empty_body).
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response, StatusCode};
/// use tower_quota::{Rejection, http::TooManyRequests, policy::Answer};
///
/// let answer = TooManyRequests::new();
/// let request = Request::new(());
/// let response: Result<Response<String>, Infallible> = answer.refuse(&request, Rejection::Denied);
/// assert_eq!(response.map(|response| response.status()), Ok(StatusCode::FORBIDDEN));
/// ```
#[derive(Clone)]
#[must_use = "an answer does nothing until it is given to a layer"]
pub struct TooManyRequests<M = ProblemBody> {
    make_body: M,
    fields: Fields,
    format: BodyFormat,
    grpc_codes: ByCause<GrpcCode>,
    grpc_fields: bool,
    grpc_pushback: bool,
    message: Option<Arc<str>>,
    retry_after: bool,
    statuses: ByCause<StatusCode>,
}

impl TooManyRequests {
    /// Answers as described above.
    pub const fn new() -> Self {
        Self {
            make_body: ProblemBody,
            fields: Fields::DEFAULT,
            format: BodyFormat::Problem,
            grpc_codes: ByCause::GRPC_CODES,
            grpc_fields: false,
            grpc_pushback: false,
            message: None,
            retry_after: true,
            statuses: ByCause::STATUSES,
        }
    }
}

/// What is told.
impl<M> TooManyRequests<M> {
    /// Sets the HTTP status of a refusal.
    ///
    /// A quota that is answered with 503 is told as a want of the server's capacity.
    pub fn status(mut self, cause: Cause, status: StatusCode) -> Self {
        self.statuses.set(cause, status);
        self
    }

    /// Sets the gRPC status of a refusal. [`GrpcCode::Unavailable`] is the one that clients retry.
    pub fn grpc_code(mut self, cause: Cause, code: GrpcCode) -> Self {
        self.grpc_codes.set(cause, code);
        self
    }

    /// Sets what a person reads when the quota is used up: the problem's `detail`, the plain text,
    /// the gRPC message (of which 512 bytes are sent).
    pub fn message(mut self, message: impl Into<Arc<str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Sets the form of the body.
    pub fn format(mut self, format: BodyFormat) -> Self {
        self.format = format;
        self
    }

    /// Leaves the body of refusals empty. Serves any response whose body has a default.
    pub fn empty_body(self) -> TooManyRequests<EmptyBody> {
        self.body(EmptyBody)
    }

    /// Makes the bodies by `make_body`, a closure `|text: String| -> B`.
    pub fn body<N>(self, make_body: N) -> TooManyRequests<N> {
        TooManyRequests {
            make_body,
            fields: self.fields,
            format: self.format,
            grpc_codes: self.grpc_codes,
            grpc_fields: self.grpc_fields,
            grpc_pushback: self.grpc_pushback,
            message: self.message,
            retry_after: self.retry_after,
            statuses: self.statuses,
        }
    }
}

/// Which fields tell it.
impl<M> TooManyRequests<M> {
    /// Sets the forms of the fields that tell how the quota stands; [`FieldStyles::NONE`] for none.
    pub fn fields(mut self, styles: impl Into<FieldStyles>) -> Self {
        self.fields.styles = styles.into();
        self
    }

    /// Sets whether the fields stand on redirects (3xx) too, which caches may keep. They do not.
    pub fn fields_on_redirects(mut self, on_redirects: bool) -> Self {
        self.fields.on_redirects = on_redirects;
        self
    }

    /// Sets whether the fields stand on gRPC responses too. They do not.
    pub fn fields_on_grpc(mut self, on_grpc: bool) -> Self {
        self.grpc_fields = on_grpc;
        self
    }

    /// Sets which part of the quota the callers of this layer share, the `pk` parameter.
    pub fn partition(mut self, partition: Partition) -> Self {
        self.fields.partition = Some(Arc::new(partition));
        self
    }

    /// Sets whether policies without a name are called as `express-rate-limit` does:
    /// [`express_name`](super::express_name).
    pub fn express_names(mut self, express_names: bool) -> Self {
        self.fields.express_names = express_names;
        self
    }

    /// Sets whether callers are not told which policies there are, and which they violated.
    pub fn hide_policies(mut self, hide_policies: bool) -> Self {
        self.fields.hide_policies = hide_policies;
        self
    }

    /// Sets whether refusals have a `Retry-After`. They do.
    pub fn retry_after(mut self, retry_after: bool) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Sets whether gRPC refusals have `grpc-retry-pushback-ms`, by which clients with a retry
    /// policy wait as long as told, and do not retry what cannot succeed. They do not.
    pub fn grpc_pushback(mut self, grpc_pushback: bool) -> Self {
        self.grpc_pushback = grpc_pushback;
        self
    }
}

impl Default for TooManyRequests {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> fmt::Debug for TooManyRequests<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TooManyRequests")
            .field("fields", &self.fields)
            .field("format", &self.format)
            .field("statuses", &self.statuses)
            .field("grpc_codes", &self.grpc_codes)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl<M, B, ResB, E> Answer<Request<B>, Response<ResB>, E> for TooManyRequests<M>
where
    M: MakeBody<ResB>,
{
    fn annotates(&self) -> bool {
        self.fields.styles != FieldStyles::NONE
    }

    fn refuse(&self, request: &Request<B>, rejection: Rejection) -> Result<Response<ResB>, E> {
        Ok(match Dialect::of(request.headers()) {
            Some(dialect) => self.grpc_refusal(dialect, &rejection),
            None => self.http_refusal(request.method(), &rejection),
        })
    }

    fn annotate(&self, snapshot: &Snapshot, policies: &Policies, response: &mut Response<ResB>) {
        let is_skipped = !self.fields.on_redirects && response.status().is_redirection()
            || !self.grpc_fields && Dialect::of(response.headers()).is_some();
        if !is_skipped {
            self.fields.write(&Standing::new(snapshot, policies), response.headers_mut());
        }
    }
}

impl<M> TooManyRequests<M> {
    fn http_refusal<B>(&self, method: &Method, rejection: &Rejection) -> Response<B>
    where
        M: MakeBody<B>,
    {
        let cause = Cause::from(rejection);
        let status = self.statuses.get(cause);
        let mut headers = HeaderMap::with_capacity(8);

        if self.retry_after
            && let Some(retry_after) = rejection.retry_after()
            && let Some(value) = retry_after.as_secs_ceil().and_then(integer)
        {
            insert(&mut headers, &header::RETRY_AFTER, value);
        }
        if let Rejection::OverLimit(denial) = rejection {
            self.fields.write(&Standing::of_denial(denial), &mut headers);
        }
        insert(&mut headers, &header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

        let mut text = None;
        if M::HAS_TEXT {
            let violated = self.violated(rejection).map(|violation| violation.name).collect();
            let problem = Problem::new(cause, status, self.detail(rejection), violated);
            let written = self.format.text_of(problem);
            insert(&mut headers, &header::CONTENT_TYPE, self.format.content_type());
            if let Some(length) = integer(written.len() as u64) {
                insert(&mut headers, &header::CONTENT_LENGTH, length);
            }
            text = Some(written).filter(|_| method != Method::HEAD);
        }

        let mut response = Response::new(match text {
            Some(text) => self.make_body.of_text(text),
            None => self.make_body.empty(),
        });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn grpc_refusal<B>(&self, dialect: Dialect, rejection: &Rejection) -> Response<B>
    where
        M: MakeBody<B>,
    {
        let cause = Cause::from(rejection);
        let mut response = Response::new(self.make_body.empty());
        let headers = response.headers_mut();
        headers.reserve(8);

        if let Rejection::OverLimit(denial) = rejection
            && self.grpc_fields
        {
            self.fields.write(&Standing::of_denial(denial), headers);
            // Clients may allow 8 KiB for all headers, and the details say what these fields say.
            if headers.values().map(HeaderValue::len).sum::<usize>() > MAX_GRPC_FIELDS {
                headers.clear();
            }
        }
        GrpcRefusal {
            dialect,
            code: self.grpc_codes.get(cause),
            message: self.detail(rejection).unwrap_or_else(|| cause.message()),
            retry_after: rejection.retry_after(),
            has_pushback: self.grpc_pushback,
            violations: self.violated(rejection).collect(),
        }
        .write(headers);
        response
    }

    /// What is to be said beyond the title.
    fn detail(&self, rejection: &Rejection) -> Option<&str> {
        match rejection {
            Rejection::OverLimit(Denial { retry_after: RetryAfter::Never, .. }) => Some(NEVER),
            Rejection::OverLimit(_) => self.message.as_deref(),
            other => Some(Cause::from(other).message()),
        }
    }

    /// The policies that refused, unless they are hidden.
    fn violated<'a>(&self, rejection: &'a Rejection) -> impl Iterator<Item = Violation<'a>> {
        let denial = match rejection {
            Rejection::OverLimit(denial) if !self.fields.hide_policies => Some(denial),
            _ => None,
        };
        denial.into_iter().flat_map(move |denial| {
            let is_violated = |(place, _): &(usize, &QuotaPolicy)| denial.violated.contains(*place);
            denial
                .policies
                .iter()
                .enumerate()
                .filter(is_violated)
                .map(|(_, policy)| Violation { name: self.fields.name_of(Some(policy)), policy })
        })
    }
}

const NEVER: &str =
    "The request costs more than the quota ever holds, so it can never succeed as it is.";

/// The bytes of field values that a gRPC refusal may have beside its status and details.
const MAX_GRPC_FIELDS: usize = 1_024;
