//! Bodies of requests.

use axum::{
    body::Bytes,
    extract::{FromRequest as _, Request},
};
use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};

use super::{Settings, problem::Problem};
use crate::quota_service::{Ask, Descriptor, Entry, LimitOverride, Unit};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskBody {
    domain: String,
    descriptors: Vec<DescriptorBody>,
    #[serde(default = "one")]
    hits: u64,
    /// Of reservations: how long it is open.
    #[serde(default)]
    pub(super) expires_in_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptorBody {
    entries: Vec<EntryBody>,
    #[serde(default)]
    hits: Option<u64>,
    #[serde(default)]
    refund: bool,
    #[serde(default)]
    limit: Option<LimitBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryBody {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitBody {
    requests_per_unit: u64,
    unit: String,
}

/// What was in fact used: the same for each descriptor, or of each in their order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleBody {
    pub(super) hits: Used,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Used {
    Alike(u64),
    Each(Vec<Option<u64>>),
}

const fn one() -> u64 {
    1
}

impl Used {
    pub(super) fn of(&self, descriptor: usize) -> Option<u64> {
        match self {
            Self::Alike(hits) => Some(*hits),
            Self::Each(each) => each.get(descriptor).copied().flatten(),
        }
    }
}

impl AskBody {
    pub(super) fn into_ask(self) -> Result<Ask, Problem> {
        let descriptors = self.descriptors.into_iter().map(DescriptorBody::into_descriptor);
        Ok(Ask::new(self.domain, descriptors.collect::<Result<Vec<_>, _>>()?).hits(self.hits))
    }
}

impl DescriptorBody {
    fn into_descriptor(self) -> Result<Descriptor, Problem> {
        let limit = self.limit.map(LimitBody::into_override).transpose()?;
        let entries = self.entries.into_iter().map(|entry| Entry::new(entry.key, entry.value));
        Ok(Descriptor { entries: entries.collect(), hits: self.hits, refund: self.refund, limit })
    }
}

impl LimitBody {
    fn into_override(self) -> Result<LimitOverride, Problem> {
        let unit = Unit::named(&self.unit).ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "the unit of a limit is one of second, minute, hour, day, week, month, year",
            )
        })?;
        Ok(LimitOverride { requests_per_unit: self.requests_per_unit, unit })
    }
}

/// Reads a body of JSON, within bounds of size and time.
pub(super) async fn json<T: DeserializeOwned>(
    settings: &Settings,
    request: Request,
) -> Result<T, Problem> {
    let body = tokio::time::timeout(settings.read_timeout, Bytes::from_request(request, &())).await;
    let body = match body {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Problem::new(error.status(), "the body is too large"));
        }
        Ok(Err(error)) => return Err(Problem::new(error.status(), "the body broke off")),
        Err(_) => {
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"));
        }
    };
    serde_json::from_slice(&body).map_err(|error| {
        // The message of the error can have a value in it, and values can be secrets.
        let detail = format!(
            "the body is not what is expected here: see line {}, column {}",
            error.line(),
            error.column()
        );
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
}
