use http::{HeaderMap, Response};
use serde::Deserialize;

use crate::{
    decision::Snapshot,
    http::{EmptyBody, FieldStyle, TooManyRequests},
    name::Policies,
    policy::Answer,
};

/// Which fields tell how the limit stands that is nearest to refusing, in the answers of the
/// quota service.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HeaderFields {
    /// None.
    #[default]
    None,
    /// `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`, as Envoy's reference service
    /// writes them.
    Reference,
    /// `RateLimit` and `RateLimit-Policy`: IETF drafts 08 to 11.
    Ietf,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, a Unix time.
    XRateLimit,
}

/// What stands in the body of a refusal that somebody else makes: Envoy.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DeniedBody {
    #[default]
    None,
    Problem,
}

impl HeaderFields {
    /// The fields for a limit that stands so.
    pub(super) fn of(self, snapshot: &Snapshot, policies: &Policies) -> HeaderMap {
        let answer = TooManyRequests::new().empty_body();
        let answer = match self {
            Self::None => return HeaderMap::new(),
            Self::Reference => answer.fields(FieldStyle::Draft06).hide_policies(true),
            Self::Ietf => answer.fields(FieldStyle::Draft08),
            Self::XRateLimit => answer.fields(FieldStyle::XRateLimit),
        };
        write(&answer, snapshot, policies)
    }
}

fn write(
    answer: &TooManyRequests<EmptyBody>,
    snapshot: &Snapshot,
    policies: &Policies,
) -> HeaderMap {
    let mut response = Response::new(());
    Answer::<http::Request<()>, Response<()>, std::convert::Infallible>::annotate(
        answer,
        snapshot,
        policies,
        &mut response,
    );
    response.into_parts().0.headers
}
