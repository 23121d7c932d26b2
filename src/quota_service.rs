//! A central quota service: whoever has a request asks it whether it may pass.
//!
//! [`Rules`] say which requests have which limits; a [`QuotaService`] decides by them over any
//! backend.

mod ask_error;
mod check;
mod counts;
mod decide;
mod error;
mod fields;
mod limit;
mod lines;
mod place;
mod problem;
mod request;
mod reservations;
mod resolve;
mod rule;
mod rule_file;
mod rules;
mod service;
mod shape;
mod tokens;
mod tree;
mod verdict;

#[cfg(feature = "envoy-rls")]
pub mod envoy;
pub mod http;

pub use self::{
    ask_error::AskError,
    counts::RuleCounts,
    error::RulesError,
    fields::HeaderFields,
    request::{Ask, Descriptor, Entry, LimitOverride},
    reservations::{ReservationId, SettleError},
    rule::{RuleLimit, Unit},
    rule_file::{RuleFile, RuleFileError},
    rules::Rules,
    service::QuotaService,
    tokens::BearerTokens,
    verdict::{LimitStatus, Status, Verdict},
};
