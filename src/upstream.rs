//! Staying inside the limits of somebody else.
//!
//! [`UpstreamLayer`] stands before a client and sends by an [`Account`] what its limits allow: it
//! estimates, waits, observes and settles. A [`Pool`] has several accounts, a [`Board`] tells a
//! fleet what one of its instances was told. The [guide](crate::guide::upstream) begins with them.
//!
//! What they are made of can be had alone: nothing of it sends, waits or reads a clock. A
//! [`Profile`] says what is to be known of a provider, as data. By it
//!
//! - [`Profile::estimate`] and [`Profile::reserved`] say what a request will cost, before it is
//!   sent; [`Learned`] corrects them by what calls came to;
//! - [`Profile::observe`] reads from an answer how the limits stand and until when to stop;
//! - [`Standing`] keeps that together, whatever the order in which answers come, and says when a
//!   request fits;
//! - [`UsageReading`] reads from a body or a stream, as it passes, what the call cost, and whether
//!   it ends in an error.
//!
//! | provider | limits in the fields | usage |
//! |---|---|---|
//! | `openai`, `groq`, `openrouter`, `mistral`, `cerebras`, `azure-openai` | `x-ratelimit-…`, each in its own form | `usage` at the end of a stream |
//! | `anthropic` | `anthropic-ratelimit-…` | at the start and in each delta |
//! | `gemini` | none; refusals name the quota | `usageMetadata` in each event, or element of an array |
//! | `bedrock` | none | `usage`, in a binary event stream |
//! | `dashscope`, `deepseek`, `zhipu` | none | as OpenAI |
//! | `hugging-face`, `ietf` | `RateLimit`, `RateLimit-Policy` | none |
//!
//! # Right and wrong
//!
//! ```
//! use http::{HeaderMap, StatusCode};
//! use tower_quota::{time::Timestamp, upstream::{Answer, Class, Profile, Standing}};
//!
//! let profile = Profile::ready("gemini").expect("it is ready-made");
//! let mut standing = Standing::new(&profile);
//! let now = Timestamp::from_secs(1_790_000_000);
//! let cost = profile.reserved(&profile.estimate(br#"{"contents": [{"parts": [{"text": "Hi"}]}]}"#));
//! let ticket = standing.send(now, cost);
//!
//! let body = br#"{"error": {"code": 429, "details": [
//!     {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
//!     {"retryDelay": "36s"}]}}"#;
//! let answer = Answer {
//!     status: StatusCode::TOO_MANY_REQUESTS,
//!     headers: &HeaderMap::new(),
//!     body,
//!     sent: now,
//!     received: now,
//! };
//! standing.observe(Some(ticket), &profile.observe(&answer));
//! // Right: the day's quota is spent, and comes back at the provider's midnight.
//! let stop = standing.stop(now).expect("it stops");
//! assert_eq!(stop.class, Class::Daily);
//! assert!(stop.until > Some(Timestamp::from_secs(1_790_000_036)));
//! ```
//!
//! Wrong: to wait for the `retryDelay` of 36 seconds and send the next request into the same
//! refusal, which many a provider counts too.

mod account;
mod board;
mod dimension;
mod elements;
mod encoding;
mod estimate;
mod estimates;
mod event_stream;
mod events;
mod exchange;
mod form;
mod found;
mod ietf;
mod inside;
mod layer;
mod learned;
mod metering;
mod midnight;
mod model;
mod number;
mod observation;
mod paths;
mod pool;
mod profile;
mod reading;
mod refusal;
mod scan;
mod sentence;
mod service;
mod standing;
mod tokenizer;
mod usage;
mod window;

#[cfg(feature = "tokenizer")]
pub use self::tokenizer::OpenAiTokenizer;
pub use self::{
    account::{Account, AccountBuilder},
    board::{Board, KnownLimit, Notice, Outage},
    dimension::Dimension,
    estimate::Estimate,
    form::Form,
    layer::UpstreamLayer,
    learned::Learned,
    metering::Metering,
    observation::{Answer, Class, Observation, Report, Source, Stop},
    pool::Pool,
    profile::{Profile, ProfileError},
    reading::UsageReading,
    service::{Upstream, UpstreamBody, UpstreamFuture},
    standing::{LimitStanding, Standing, Ticket},
    tokenizer::Tokenizer,
    usage::Usage,
    window::infer_window,
};
