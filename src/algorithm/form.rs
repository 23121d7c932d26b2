//! Algorithms in the form in which they travel to a quota server.

#[cfg(feature = "quota-service")]
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(feature = "quota-service")]
use super::{FixedWindow, LeakyBucket, SlidingCounter, SlidingLog, SlidingWindow, TokenBucket};
use super::{Plan, Rule, windows_form::WindowsForm};
use crate::quota::Quota;
#[cfg(feature = "remote")]
use crate::time::saturating_nanos;
#[cfg(feature = "quota-service")]
use crate::{error::ConfigError, name::PolicyName};

/// The limits of a plan. Any other algorithm travels as a plan of one limit.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanForm {
    limits: Vec<LimitForm>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LimitForm {
    name: String,
    dimension: usize,
    rule: RuleForm,
}

/// Times are nanoseconds.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
enum RuleForm {
    FixedWindow { limit: u64, windows: WindowsForm },
    LeakyBucket { limit: u64, period: u64, depth: u64, max_wait: Option<u64> },
    SlidingCounter { limit: u64, period: u64 },
    SlidingLog { limit: u64, period: u64, max_entries: usize },
    SlidingWindow { limit: u64, period: u64, segments: u64 },
    TokenBucket { limit: u64, period: u64, burst: u64 },
}

#[cfg(feature = "remote")]
impl From<&Plan> for PlanForm {
    fn from(plan: &Plan) -> Self {
        let limits = plan.limits().map(|(name, dimension, rule)| LimitForm {
            name: name.to_string(),
            dimension,
            rule: rule.into(),
        });
        Self { limits: limits.collect() }
    }
}

#[cfg(feature = "quota-service")]
impl TryFrom<PlanForm> for Plan {
    type Error = ConfigError;

    fn try_from(form: PlanForm) -> Result<Self, ConfigError> {
        let mut plan = Self::new();
        for LimitForm { name, dimension, rule } in form.limits {
            plan = plan.limit_on(dimension, PolicyName::new(name)?, Rule::try_from(rule)?);
        }
        plan.build()
    }
}

#[cfg(feature = "remote")]
impl From<&Rule> for RuleForm {
    fn from(rule: &Rule) -> Self {
        let nanos = |quota: Quota| saturating_nanos(quota.period());
        match rule {
            Rule::FixedWindow(window) => {
                let (limit, windows) = window.form();
                Self::FixedWindow { limit, windows }
            }
            Rule::LeakyBucket(bucket) => {
                let (quota, depth, max_wait) = bucket.form();
                let max_wait = max_wait.map(saturating_nanos);
                Self::LeakyBucket { limit: quota.limit(), period: nanos(quota), depth, max_wait }
            }
            Rule::SlidingCounter(counter) => {
                let (limit, period) = counter.form();
                Self::SlidingCounter { limit, period: saturating_nanos(period) }
            }
            Rule::SlidingLog(log) => {
                let (limit, period, max_entries) = log.form();
                Self::SlidingLog { limit, period: saturating_nanos(period), max_entries }
            }
            Rule::SlidingWindow(window) => {
                let (limit, period, segments) = window.form();
                Self::SlidingWindow { limit, period: saturating_nanos(period), segments }
            }
            Rule::TokenBucket(bucket) => {
                let (quota, burst) = bucket.form();
                Self::TokenBucket { limit: quota.limit(), period: nanos(quota), burst }
            }
        }
    }
}

#[cfg(feature = "quota-service")]
impl TryFrom<RuleForm> for Rule {
    type Error = ConfigError;

    fn try_from(form: RuleForm) -> Result<Self, ConfigError> {
        let quota = |limit, period| Quota::new(limit, Duration::from_nanos(period));
        Ok(match form {
            RuleForm::FixedWindow { limit, windows } => {
                FixedWindow::of_form(limit, windows)?.into()
            }
            RuleForm::LeakyBucket { limit, period, depth, max_wait } => {
                let bucket = LeakyBucket::new(quota(limit, period)?).depth(depth);
                let max_wait = max_wait.map(Duration::from_nanos);
                max_wait.map_or(bucket, |max_wait| bucket.max_wait(max_wait)).into()
            }
            RuleForm::SlidingCounter { limit, period } => {
                SlidingCounter::new(quota(limit, period)?).into()
            }
            RuleForm::SlidingLog { limit, period, max_entries } => {
                SlidingLog::new(quota(limit, period)?).max_entries(max_entries).into()
            }
            RuleForm::SlidingWindow { limit, period, segments } => {
                SlidingWindow::new(quota(limit, period)?).segments(segments)?.into()
            }
            RuleForm::TokenBucket { limit, period, burst } => {
                TokenBucket::new(quota(limit, period)?).burst(burst).into()
            }
        })
    }
}
