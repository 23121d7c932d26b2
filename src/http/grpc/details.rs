use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::HeaderValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetail, QuotaFailure, QuotaViolation, RetryInfo, StatusExt as _};

use super::{GrpcRefusal, Violation};
use crate::decision::RetryAfter;

/// The bytes that violations may take before base64. With the longest message, its escapes and the
/// encoding, all headers of a refusal stay below 8 KiB.
const MAX_VIOLATIONS: usize = 2_048;

impl GrpcRefusal<'_> {
    /// The value of `grpc-status-details-bin`; `None` if there is nothing to say.
    pub(super) fn details(&self, message: &str) -> Option<HeaderValue> {
        let mut details = Vec::new();
        if let Some(wait) = self.retry_after.and_then(RetryAfter::duration) {
            details.push(ErrorDetail::RetryInfo(RetryInfo::new(Some(wait))));
        }
        let violations = within_budget(self.violations.iter().map(violation));
        if !violations.is_empty() {
            details.push(ErrorDetail::QuotaFailure(QuotaFailure::new(violations)));
        }
        if details.is_empty() {
            return None;
        }
        encoded(Code::from_i32(self.code as i32), message, details)
    }
}

fn violation(violation: &Violation<'_>) -> QuotaViolation {
    let Violation { name, policy } = violation;
    let metric = policy.unit.as_ref().map_or("requests", |unit| unit.as_str());
    let description =
        format!("quota of {} {metric} per {:?} exceeded", policy.quota, policy.window);
    let mut violation = QuotaViolation::new("", description);
    violation.quota_metric = metric.into();
    violation.quota_id = name.to_string();
    violation.quota_value = i64::try_from(policy.quota).unwrap_or(i64::MAX);
    violation
}

fn within_budget(violations: impl Iterator<Item = QuotaViolation>) -> Vec<QuotaViolation> {
    // Tags, lengths and the value.
    const FRAME: usize = 24;

    let mut left = MAX_VIOLATIONS;
    violations
        .map_while(|violation| {
            let texts = [&violation.description, &violation.quota_metric, &violation.quota_id];
            let size = FRAME + texts.iter().map(|text| text.len()).sum::<usize>();
            left = left.checked_sub(size)?;
            Some(violation)
        })
        .collect()
}

/// Unpadded, as gRPC asks senders to write it.
fn encoded(code: Code, message: &str, details: Vec<ErrorDetail>) -> Option<HeaderValue> {
    let status = Status::with_error_details_vec(code, message, details);
    HeaderValue::try_from(STANDARD_NO_PAD.encode(status.details())).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// E4: what the crate itself never tells (a subject) included.
    #[test]
    fn details_are_the_bytes_that_tonic_writes() {
        let mut violation =
            QuotaViolation::new("clientip:192.0.2.1", "per-minute request quota exceeded");
        violation.quota_metric = "requests".into();
        violation.quota_id = "permin".into();
        violation.quota_value = 100;
        let details = vec![
            ErrorDetail::RetryInfo(RetryInfo::new(Some(Duration::from_secs(5)))),
            ErrorDetail::QuotaFailure(QuotaFailure::new(vec![violation])),
        ];
        assert_eq!(
            encoded(Code::ResourceExhausted, "rate limit exceeded: 100% used", details)
                .expect("they are encoded"),
            "CAgSHnJhdGUgbGltaXQgZXhjZWVkZWQ6IDEwMCUgdXNlZBowCih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2ds\
             ZS5ycGMuUmV0cnlJbmZvEgQKAggFGnwKK3R5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5RdW90YUZh\
             aWx1cmUSTQpLChJjbGllbnRpcDoxOTIuMC4yLjESIXBlci1taW51dGUgcmVxdWVzdCBxdW90YSBleGNlZWRl\
             ZCIIcmVxdWVzdHMqBnBlcm1pbjhk"
        );
    }
}
