//! The form of a profile's text.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ProfileError;
use crate::upstream::{dimension::Dimension, form::Form, observation::Class};

/// A profile as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    name: String,
    like: Option<String>,
    dimensions: Option<Vec<Dimension>>,
    ietf_fields: Option<bool>,
    limit: Option<Vec<LimitShape>>,
    wait: Option<WaitShape>,
    refusal: Option<Vec<RuleShape>>,
    inside: Option<InsideShape>,
    usage: Option<UsageShape>,
    estimate: Option<EstimateShape>,
    weights: Option<Weights>,
}

/// A profile, with what it takes from another.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Shape {
    pub(in crate::upstream) name: String,
    pub(in crate::upstream) dimensions: Option<Vec<Dimension>>,
    pub(in crate::upstream) ietf_fields: Option<bool>,
    pub(in crate::upstream) limit: Option<Vec<LimitShape>>,
    pub(in crate::upstream) wait: WaitShape,
    pub(in crate::upstream) refusal: Option<Vec<RuleShape>>,
    pub(in crate::upstream) inside: InsideShape,
    pub(in crate::upstream) usage: UsageShape,
    pub(in crate::upstream) estimate: EstimateShape,
    pub(in crate::upstream) weights: Weights,
}

/// A limit, and the header fields that tell how it stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::upstream) struct LimitShape {
    name: Option<String>,
    pub(in crate::upstream) dimension: Dimension,
    pub(in crate::upstream) window: Option<String>,
    /// It refills all the time, so that the window can be inferred.
    #[serde(default)]
    pub(in crate::upstream) refills: bool,
    pub(in crate::upstream) limit: Option<String>,
    pub(in crate::upstream) remaining: Option<String>,
    pub(in crate::upstream) reset: Option<String>,
    pub(in crate::upstream) form: Option<Form>,
    /// What remains is rounded to a multiple of so much.
    #[serde(default)]
    pub(in crate::upstream) rounded_to: u64,
    /// A limit of zero says that there is none.
    #[serde(default)]
    pub(in crate::upstream) zero_is_none: bool,
    /// It does not bind ordinary requests.
    #[serde(default)]
    pub(in crate::upstream) apart: bool,
    /// The time zone at whose midnight it begins anew.
    pub(in crate::upstream) midnight: Option<String>,
}

impl LimitShape {
    pub(in crate::upstream) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.dimension.name())
    }
}

/// Where a refusal says when to ask again.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::upstream) struct WaitShape {
    /// Header fields, the first that has a value before the others.
    #[serde(default)]
    pub(in crate::upstream) headers: Vec<Place>,
    /// Paths in the body.
    #[serde(default)]
    pub(in crate::upstream) paths: Vec<Place>,
    /// Paths to sentences in the body.
    #[serde(default)]
    pub(in crate::upstream) sentences: Vec<String>,
    /// Words in a sentence before a time.
    #[serde(default)]
    pub(in crate::upstream) before_time: Vec<String>,
    /// Words in a sentence before a date and a time of day, `2026-04-01 12:00:00`.
    #[serde(default)]
    pub(in crate::upstream) before_instant: Vec<String>,
    /// How far those are ahead of UTC, as in `+08:00`.
    pub(in crate::upstream) utc_offset: Option<String>,
    /// Words in a sentence before the limit.
    pub(in crate::upstream) before_limit: Option<String>,
    /// Words in a sentence before what is used.
    pub(in crate::upstream) before_used: Option<String>,
    /// The path to the limit.
    pub(in crate::upstream) limit: Option<String>,
    /// The longest that it tells, where that is longer than a day.
    pub(in crate::upstream) longest: Option<String>,
    /// The path to an object with header fields.
    pub(in crate::upstream) body_headers: Option<String>,
}

/// A place and the form of what it says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::upstream) struct Place {
    pub(in crate::upstream) at: String,
    pub(in crate::upstream) form: Form,
}

/// What a refusal means. The first rule that fits counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::upstream) struct RuleShape {
    #[serde(default)]
    pub(in crate::upstream) status: Vec<u16>,
    pub(in crate::upstream) path: Option<String>,
    pub(in crate::upstream) is: Option<String>,
    pub(in crate::upstream) contains: Option<String>,
    pub(in crate::upstream) class: Class,
    /// The name of the limit that binds.
    pub(in crate::upstream) limit: Option<String>,
}

/// Where an answer that began well has an error. It is read like the body of an answer with the
/// status that it stands for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(in crate::upstream) struct InsideShape {
    /// What is there if it is an error.
    pub(in crate::upstream) errors: Vec<Mark>,
    /// Other places of what refusals have in `error`; the empty one is the top.
    pub(in crate::upstream) also_at: Vec<String>,
    /// Paths to its kind: a status, or one of `statuses`.
    pub(in crate::upstream) kinds: Vec<String>,
    /// The status that a kind stands for.
    pub(in crate::upstream) statuses: BTreeMap<String, u16>,
}

/// A sign of an error: an object or a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::upstream) struct Mark {
    pub(in crate::upstream) at: String,
    /// The text that it is. Absent, any.
    pub(in crate::upstream) is: Option<String>,
}

impl Default for InsideShape {
    fn default() -> Self {
        Self {
            errors: vec![Mark { at: "error".into(), is: None }],
            also_at: Vec::new(),
            kinds: vec!["error.code".into(), "error.type".into()],
            statuses: BTreeMap::new(),
        }
    }
}

/// Where an answer says what it cost.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(in crate::upstream) struct UsageShape {
    pub(in crate::upstream) input: Vec<String>,
    pub(in crate::upstream) output: Vec<String>,
    pub(in crate::upstream) total: Vec<String>,
    pub(in crate::upstream) cache_read: Vec<String>,
    pub(in crate::upstream) cache_write: Vec<String>,
    pub(in crate::upstream) thoughts: Vec<String>,
    /// Texts that are put out, each of at least one token unless it is empty.
    pub(in crate::upstream) deltas: Vec<String>,
    /// Cached tokens are not part of the input that is told.
    pub(in crate::upstream) cached_outside: bool,
    /// Thoughts are not part of the output that is told.
    pub(in crate::upstream) thoughts_outside: bool,
    /// A body that is an array of JSON is a stream, and each of its elements an event.
    pub(in crate::upstream) array_is_stream: bool,
    pub(in crate::upstream) settles: Settles,
    pub(in crate::upstream) counts_on_failure: OnFailure,
}

/// What counts in the end.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::upstream) enum Settles {
    /// What was used.
    #[default]
    Used,
    /// What was reserved.
    Reserved,
}

/// What counts of a failed request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::upstream) enum OnFailure {
    /// All that was reserved for it.
    #[default]
    Reserved,
    /// One request.
    Request,
    /// Nothing.
    Nothing,
}

/// What a request is estimated to cost.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(in crate::upstream) struct EstimateShape {
    pub(in crate::upstream) texts: Vec<String>,
    pub(in crate::upstream) messages: Vec<String>,
    pub(in crate::upstream) images: Vec<String>,
    /// The most that is put out; where there are several, the largest.
    pub(in crate::upstream) caps: Vec<String>,
    /// How many answers are asked for.
    pub(in crate::upstream) choices: Vec<String>,
    pub(in crate::upstream) characters_per_token: u64,
    pub(in crate::upstream) per_message: u64,
    pub(in crate::upstream) per_request: u64,
    pub(in crate::upstream) per_image: u64,
    pub(in crate::upstream) reserve_output: ReserveOutput,
    /// What is reserved where the request has no cap.
    pub(in crate::upstream) absent_cap: u64,
}

impl Default for EstimateShape {
    fn default() -> Self {
        Self {
            texts: Vec::new(),
            messages: Vec::new(),
            images: Vec::new(),
            caps: Vec::new(),
            choices: Vec::new(),
            characters_per_token: 4,
            per_message: 0,
            per_request: 0,
            per_image: 0,
            reserve_output: ReserveOutput::default(),
            absent_cap: 0,
        }
    }
}

/// Whether output is reserved.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::upstream) enum ReserveOutput {
    /// It counts only when it is there.
    #[default]
    Nothing,
    /// As much as the request allows.
    Cap,
}

/// What a token counts, in percent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(in crate::upstream) struct Weights {
    pub(in crate::upstream) input: u32,
    pub(in crate::upstream) cache_read: u32,
    pub(in crate::upstream) cache_write: u32,
    pub(in crate::upstream) output: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { input: 100, cache_read: 100, cache_write: 100, output: 100 }
    }
}

impl Shape {
    /// Reads a profile, and what it takes from the one that it is like.
    pub(super) fn read(
        text: &str,
        ready: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<Self, ProfileError> {
        let written = Written::read(text)?;
        let base = match &written.like {
            Some(name) => {
                let unknown = || ProfileError::Meaningless {
                    key: "like".into(),
                    remedy: "write the name of a ready-made profile, one of `Profile::READY`",
                };
                Some(Written::read(ready(name).ok_or_else(unknown)?)?)
            }
            None => None,
        };
        Ok(written.over(base))
    }
}

impl Written {
    fn read(text: &str) -> Result<Self, ProfileError> {
        toml::from_str(text).map_err(|error| ProfileError::Malformed(Box::new(error)))
    }

    /// What it does not say is as in `base`, table by table: one limit replaces all limits.
    fn over(self, base: Option<Self>) -> Shape {
        macro_rules! or_base {
            ($field:ident) => {
                self.$field.or_else(|| base.as_ref().and_then(|base| base.$field.clone()))
            };
        }
        let takes_rules = self.refusal.is_none();
        let mut shape = Shape {
            dimensions: or_base!(dimensions),
            ietf_fields: or_base!(ietf_fields),
            limit: or_base!(limit),
            wait: or_base!(wait).unwrap_or_default(),
            refusal: or_base!(refusal),
            inside: or_base!(inside).unwrap_or_default(),
            usage: or_base!(usage).unwrap_or_default(),
            estimate: or_base!(estimate).unwrap_or_default(),
            weights: or_base!(weights).unwrap_or_default(),
            name: self.name,
        };
        if takes_rules {
            // The rules of another may name a limit that this profile has replaced.
            let limits = shape.limit.as_deref().unwrap_or_default();
            for rule in shape.refusal.iter_mut().flatten() {
                rule.limit.take_if(|name| !limits.iter().any(|limit| limit.name() == *name));
            }
        }
        shape
    }
}
