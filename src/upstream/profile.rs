mod check;
mod error;
mod shape;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

pub use self::error::ProfileError;
pub(super) use self::shape::{
    EstimateShape, InsideShape, LimitShape, OnFailure, ReserveOutput, RuleShape, Settles, Shape,
    UsageShape, WaitShape, Weights,
};
use super::{dimension::Dimension, paths::Paths};
use crate::{cost::Cost, error::ConfigError, quota::Quota};

/// What is to be known of a provider to stay inside its limits. It is data: TOML text.
///
/// It says which limits there are, which fields of an answer tell how they stand and in which form,
/// what the bodies of refusals mean, what a request is estimated to cost, and where an answer says
/// what it cost. [`guide::profiles`](crate::guide::profiles) has every key of it.
///
/// ```
/// use tower_quota::upstream::{Dimension, Profile};
///
/// let openai = Profile::ready("openai").expect("it is one of `Profile::READY`");
/// assert_eq!(openai.dimensions(), [Dimension::Requests, Dimension::Tokens]);
///
/// // One of your own takes the tables that it does not have from a ready-made one. It has limits, so
/// // none of the limits of the other.
/// let mine: Profile = r#"
///     name = "house"
///     like = "openai"
///
///     [[limit]]
///     dimension = "tokens"
///     window = "1m"
///     limit = "x-house-limit"
///     remaining = "x-house-left"
/// "#.parse()?;
/// assert_eq!((mine.name(), mine.limits().count()), ("house", 1));
/// # Ok::<(), tower_quota::upstream::ProfileError>(())
/// ```
///
/// # Clone
///
/// Clones share one profile.
#[derive(Clone)]
pub struct Profile {
    inner: Arc<Inner>,
}

struct Inner {
    shape: Shape,
    dimensions: Vec<Dimension>,
    windows: Vec<Option<Duration>>,
    longest_stop: Option<Duration>,
    refusal_paths: Paths,
    reading_paths: Paths,
    estimate_paths: Paths,
}

impl Profile {
    /// The names of the profiles that are ready-made.
    pub const READY: &'static [&'static str] = &[
        "anthropic",
        "azure-openai",
        "bedrock",
        "cerebras",
        "dashscope",
        "deepseek",
        "gemini",
        "groq",
        "hugging-face",
        "ietf",
        "mistral",
        "openai",
        "openrouter",
        "zhipu",
    ];

    /// The ready-made profile of this name; `None` if there is none.
    pub fn ready(name: &str) -> Option<Self> {
        Self::ready_text(name)?.parse().ok()
    }

    /// The text of the ready-made profile of this name, to start from; `None` if there is none.
    ///
    /// ```
    /// use tower_quota::upstream::Profile;
    ///
    /// let text = Profile::ready_text("openai").expect("it is ready-made");
    /// assert!(text.contains("dimensions = [\"requests\", \"tokens\"]"));
    /// ```
    pub fn ready_text(name: &str) -> Option<&'static str> {
        ready_text(name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.shape.name
    }

    /// What each dimension of a [`Cost`] counts, in their order.
    pub fn dimensions(&self) -> &[Dimension] {
        &self.inner.dimensions
    }

    /// The names of its limits and their windows, where the profile says them.
    pub fn limits(&self) -> impl Iterator<Item = (&str, Dimension, Option<Duration>)> {
        let windows = self.inner.windows.iter();
        self.limit_shapes()
            .iter()
            .zip(windows)
            .map(|(limit, window)| (limit.name(), limit.dimension, *window))
    }

    /// Whether a limit can be [set by hand](super::AccountBuilder::limit) to this: what would not
    /// be kept as it is said is an error.
    ///
    /// ```
    /// use tower_quota::{Quota, upstream::Profile};
    ///
    /// let groq = Profile::ready("groq").expect("it is ready-made");
    /// assert!(groq.check_limit("requests-minute", Quota::per_minute(30)).is_ok());
    /// // By its fields, `requests` are those of a day.
    /// let error = groq.check_limit("requests", Quota::per_minute(30)).expect_err("no minute");
    /// assert!(error.to_string().contains(r#"set "requests-minute""#));
    /// ```
    ///
    /// # Errors
    ///
    /// The profile has no such limit, or one that does not bind ordinary requests, that is of what
    /// it does not count, or that is of another time.
    pub fn check_limit(&self, name: &str, quota: Quota) -> Result<(), ConfigError> {
        let shapes = self.limit_shapes();
        let Some(place) = shapes.iter().position(|shape| shape.name() == name) else {
            return Err(ConfigError::UnknownLimit { name: name.into() });
        };
        let (shape, period) = (&shapes[place], quota.period());
        self.check_counted(name, shape.dimension)?;
        // Of requests in progress no time is asked.
        if shape.dimension == Dimension::Concurrency {
            return Ok(());
        }
        let Some(window) = self.window(place).filter(|window| *window != period) else {
            return Ok(());
        };
        let mut others = self.inner.windows.iter().zip(shapes).filter(|(window, other)| {
            **window == Some(period) && other.dimension == shape.dimension && !other.apart
        });
        let instead = others.next().map(|(_, other)| other.name().to_owned());
        Err(ConfigError::LimitPeriod { name: name.into(), window, period, instead })
    }

    /// Whether a limit is counted: one of the profile, or one that the provider calls its own, of
    /// this dimension.
    pub(super) fn check_counted(
        &self,
        name: &str,
        dimension: Dimension,
    ) -> Result<(), ConfigError> {
        let own = self.limit_shapes().iter().find(|shape| shape.name() == name);
        if own.is_some_and(|shape| shape.apart) {
            return Err(ConfigError::LimitApart { name: name.into() });
        }
        let is_counted = match own.map_or(dimension, |shape| shape.dimension) {
            // Those in progress are counted by themselves, where the profile has a limit on them.
            Dimension::Concurrency => own.is_some(),
            dimension => self.dimensions().contains(&dimension),
        };
        if is_counted {
            return Ok(());
        }
        let counted: Vec<_> = self.dimensions().iter().map(|own| own.name()).collect();
        let counted = counted.join(", ");
        Err(ConfigError::LimitNotCounted { name: name.into(), counted })
    }

    /// What a failed request counts of what was reserved for it.
    #[must_use]
    pub fn failed(&self, reserved: Cost) -> Cost {
        match self.usage().counts_on_failure {
            OnFailure::Reserved => reserved,
            OnFailure::Nothing => Cost::ZERO,
            OnFailure::Request => {
                self.cost_of(|dimension| u64::from(dimension == Dimension::Requests))
            }
        }
    }

    /// A cost by what each dimension counts.
    pub(super) fn cost_of(&self, units: impl Fn(Dimension) -> u64) -> Cost {
        let dimensions = self.dimensions().iter().enumerate();
        dimensions.fold(Cost::ZERO, |cost, (index, dimension)| cost.with(index, units(*dimension)))
    }

    pub(super) fn limit_shapes(&self) -> &[LimitShape] {
        self.inner.shape.limit.as_deref().unwrap_or_default()
    }

    pub(super) fn window(&self, limit: usize) -> Option<Duration> {
        self.inner.windows.get(limit).copied().flatten()
    }

    /// The longest stop that the provider is believed, where the profile says it.
    pub(super) fn longest_stop(&self) -> Option<Duration> {
        self.inner.longest_stop
    }

    pub(super) fn has_ietf_fields(&self) -> bool {
        self.inner.shape.ietf_fields.unwrap_or(false)
    }

    pub(super) fn wait(&self) -> &WaitShape {
        &self.inner.shape.wait
    }

    pub(super) fn rules(&self) -> &[RuleShape] {
        self.inner.shape.refusal.as_deref().unwrap_or_default()
    }

    pub(super) fn usage(&self) -> &UsageShape {
        &self.inner.shape.usage
    }

    pub(super) fn estimate_shape(&self) -> &EstimateShape {
        &self.inner.shape.estimate
    }

    /// Whether both are one profile.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether both estimate alike.
    pub(super) fn estimates_like(&self, other: &Self) -> bool {
        self.is_same(other) || self.estimate_shape() == other.estimate_shape()
    }

    pub(super) fn weights(&self) -> Weights {
        self.inner.shape.weights
    }

    pub(super) fn refusal_paths(&self) -> &Paths {
        &self.inner.refusal_paths
    }

    /// Whether it knows refusals by answers whose status is a success.
    pub(super) fn refuses_with_success(&self) -> bool {
        self.rules().iter().any(|rule| rule.status.iter().any(|status| (200..300).contains(status)))
    }

    pub(super) fn inside(&self) -> &InsideShape {
        &self.inner.shape.inside
    }

    /// To the usage, and to what errors inside of an answer say.
    pub(super) fn reading_paths(&self) -> &Paths {
        &self.inner.reading_paths
    }

    pub(super) fn estimate_paths(&self) -> &Paths {
        &self.inner.estimate_paths
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let shape = Shape::read(text, ready_text)?;
        let inner = check::check(shape)?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("name", &self.name()).finish_non_exhaustive()
    }
}

fn ready_text(name: &str) -> Option<&'static str> {
    Some(match name {
        "anthropic" => include_str!("profiles/anthropic.toml"),
        "azure-openai" => include_str!("profiles/azure-openai.toml"),
        "bedrock" => include_str!("profiles/bedrock.toml"),
        "cerebras" => include_str!("profiles/cerebras.toml"),
        "dashscope" => include_str!("profiles/dashscope.toml"),
        "deepseek" => include_str!("profiles/deepseek.toml"),
        "gemini" => include_str!("profiles/gemini.toml"),
        "groq" => include_str!("profiles/groq.toml"),
        "hugging-face" => include_str!("profiles/hugging-face.toml"),
        "ietf" => include_str!("profiles/ietf.toml"),
        "mistral" => include_str!("profiles/mistral.toml"),
        "openai" => include_str!("profiles/openai.toml"),
        "openrouter" => include_str!("profiles/openrouter.toml"),
        "zhipu" => include_str!("profiles/zhipu.toml"),
        _ => return None,
    })
}
