//! The messages of `envoy.service.ratelimit.v3` and what they are made of.
//!
//! Written by hand from the fields' numbers in Envoy's protocol definitions (`rls.proto`,
//! `ratelimit.proto`, `base.proto`), so that no build needs a compiler for them. Fields that are
//! not used are left out: readers pass over them.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

/// A question of Envoy's.
#[derive(Clone, PartialEq, Message)]
pub struct RateLimitRequest {
    /// Whose rules apply.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// What the request is counted under.
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<RateLimitDescriptor>,
    /// What each is charged; zero counts as one.
    #[prost(uint32, tag = "3")]
    pub hits_addend: u32,
}

/// One thing that a request is counted under.
#[derive(Clone, PartialEq, Message)]
pub struct RateLimitDescriptor {
    /// The steps of its path into the rules.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    /// The limit that applies instead of the rule's.
    #[prost(message, optional, tag = "2")]
    pub limit: Option<RateLimitOverride>,
    /// What it is charged; zero looks and takes nothing.
    #[prost(message, optional, tag = "3")]
    pub hits_addend: Option<UInt64Value>,
    /// Whether the hits are given back.
    #[prost(bool, tag = "4")]
    pub is_negative_hits: bool,
}

/// A step of a descriptor's path.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// What it is.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Which.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A limit that comes with a request.
#[derive(Clone, PartialEq, Message)]
pub struct RateLimitOverride {
    /// The requests in each unit.
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    /// The unit: a number of [`Unit`], which here has no `Week`.
    #[prost(int32, tag = "2")]
    pub unit: i32,
}

/// `google.protobuf.UInt64Value`.
#[derive(Clone, PartialEq, Message)]
pub struct UInt64Value {
    /// The number.
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

/// The answer.
#[derive(Clone, PartialEq, Message)]
pub struct RateLimitResponse {
    /// Whether the request may pass.
    #[prost(enumeration = "Code", tag = "1")]
    pub overall_code: i32,
    /// What is said of each descriptor, in their order.
    #[prost(message, repeated, tag = "2")]
    pub statuses: Vec<DescriptorStatus>,
    /// Fields for the response to the caller.
    #[prost(message, repeated, tag = "3")]
    pub response_headers_to_add: Vec<HeaderValue>,
    /// Fields for the request to the upstream.
    #[prost(message, repeated, tag = "4")]
    pub request_headers_to_add: Vec<HeaderValue>,
    /// The body of the refusal, where Envoy makes one.
    #[prost(bytes = "vec", tag = "5")]
    pub raw_body: Vec<u8>,
    /// What Envoy's access log and the filters behind this one can read.
    #[prost(message, optional, tag = "6")]
    pub dynamic_metadata: Option<Struct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// Its members.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`, of the kinds that are sent.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// What it is.
    #[prost(oneof = "ValueKind", tags = "2, 3")]
    pub kind: Option<ValueKind>,
}

/// What a [`Value`] is.
#[derive(Clone, PartialEq, Oneof)]
#[non_exhaustive]
pub enum ValueKind {
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A text.
    #[prost(string, tag = "3")]
    Text(String),
}

/// What is said of one descriptor.
#[derive(Clone, PartialEq, Message)]
pub struct DescriptorStatus {
    /// Whether it is over its limit.
    #[prost(enumeration = "Code", tag = "1")]
    pub code: i32,
    /// The limit, if there is one.
    #[prost(message, optional, tag = "2")]
    pub current_limit: Option<RateLimit>,
    /// What is left of it.
    #[prost(uint32, tag = "3")]
    pub limit_remaining: u32,
    /// The time until all of it is there again; of who is over, until it is worth asking again.
    #[prost(message, optional, tag = "4")]
    pub duration_until_reset: Option<Duration>,
}

/// A limit.
#[derive(Clone, PartialEq, Message)]
pub struct RateLimit {
    /// The requests in each unit.
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    /// The unit; unknown where the period is none.
    #[prost(enumeration = "Unit", tag = "2")]
    pub unit: i32,
    /// Its name in the rules.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// A header field.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A verdict.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Enumeration)]
#[repr(i32)]
#[expect(clippy::exhaustive_enums, reason = "they are those of the protocol")]
pub enum Code {
    /// Never sent: Envoy lets such a request pass.
    Unknown = 0,
    /// It may pass.
    Ok = 1,
    /// It may not.
    OverLimit = 2,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Enumeration)]
#[repr(i32)]
#[expect(clippy::exhaustive_enums, reason = "they are those of the protocol")]
pub enum Unit {
    /// None of these.
    Unknown = 0,
    /// A second.
    Second = 1,
    /// A minute.
    Minute = 2,
    /// An hour.
    Hour = 3,
    /// A day.
    Day = 4,
    /// Thirty days.
    Month = 5,
    /// 365 days.
    Year = 6,
    /// A week: in answers only.
    Week = 7,
}
