//! The four layers, and one for plans and algorithms of your own.
//!
//! | layer | admits | choose it when |
//! |---|---|---|
//! | [`TokenBucketLayer`] | bursts, and a rate on average | callers are bursty and you can bear it |
//! | [`LeakyBucketLayer`] | one after another, evenly; it delays | what is behind must not see bursts |
//! | [`FixedWindowLayer`] | so many in each window | the quota is one of the calendar, or is sold so |
//! | [`SlidingWindowLayer`] | never more than so many in any period | somebody else counts |
//! | [`QuotaLayer`] | what its algorithm says | it is a [`Plan`](crate::algorithm::Plan), or yours |
//! | [`AllLayer`] | what several limits on several keys say | users, teams and everybody have limits |
//!
//! All but the last have the same settings for whom to count, at what cost and how to answer, and
//! all make the same service, [`RateLimit`](crate::RateLimit). The last says all of it in one
//! closure.

mod all;
mod fixed_window;
mod leaky_bucket;
mod quota;
mod sliding_window;
mod token_bucket;

pub use self::{
    all::{AllLayer, AllLimits, AllLimitsFuture},
    fixed_window::FixedWindowLayer,
    leaky_bucket::LeakyBucketLayer,
    quota::QuotaLayer,
    sliding_window::SlidingWindowLayer,
    token_bucket::TokenBucketLayer,
};

/// What all layers have in common: the settings that do not depend on the algorithm, and `Layer`.
///
/// `$layer` is the layer, `$algorithm` what it limits by, `$generic` the algorithm's parameter
/// where it is one.
macro_rules! shared_layer_items {
    ($layer:ident, $algorithm:ty $(, $generic:ident)?) => {
        impl<$($generic: Algorithm,)? B, K, C, R, L> $layer<$($generic,)? B, K, C, R, L>
        where
            B: Backend<$algorithm>,
        {
            /// Keeps the state in `backend`: by default in this process, for up to a million keys.
            ///
            /// Layers that are given clones of one backend share their budgets. A request that
            /// passes two of them is counted twice; the first requests are looked at for that.
            pub fn backend<B2: Backend<$algorithm>>(
                self,
                backend: B2,
            ) -> $layer<$($generic,)? B2, K, C, R, L> {
                let limiter = Limiter::of(self.limiter.limit(), backend);
                $layer { limiter, policy: self.policy, largest: self.largest }
            }

            /// Names the limit, in answers, metrics and logs.
            pub fn name(self, name: PolicyName) -> Self {
                let limit = Limit::new(name, self.limiter.limit().algorithm().clone());
                let limiter = Limiter::of(limit, self.limiter.backend().clone());
                Self { limiter, ..self }
            }

            /// Counts requests by key: each key has a budget of its own. By default all requests
            /// are counted together.
            ///
            /// A closure, or one of the keys in [`policy`](crate::policy) and
            /// [`http`](crate::http).
            pub fn key<K2>(self, key: K2) -> $layer<$($generic,)? B, K2, C, R, L> {
                self.with_policy(|policy| policy.key(key))
            }

            /// Takes more than one unit for a request: what `cost` says, a closure or
            /// [`Uniform`].
            ///
            /// What a closure will say is not known at the start: tell the
            /// [largest](Self::largest_cost) there can be, so that a limit that never holds so
            /// much is found then. `Uniform` tells it itself.
            pub fn cost<C2: 'static>(self, cost: C2) -> $layer<$($generic,)? B, K, C2, R, L> {
                let largest = self.largest.with_cost_of(&cost);
                let layer = self.with_policy(|policy| policy.cost(cost));
                $layer { largest, ..layer }
            }

            /// Says the largest cost that a request can have, for [`check`](Self::check): before
            /// or after the [`cost`](Self::cost) itself.
            pub fn largest_cost(self, largest: impl Into<Cost>) -> Self {
                Self { largest: self.largest.with_said(largest.into()), ..self }
            }

            /// Tells callers of a refusal by `answer`. By default a refusal is the service's
            /// error; HTTP and gRPC servers answer with
            /// [`TooManyRequests`](crate::http::TooManyRequests).
            pub fn answer<R2>(self, answer: R2) -> $layer<$($generic,)? B, K, C, R2, L> {
                self.with_policy(|policy| policy.answer(answer))
            }

            /// Decides each request by the limit that `limit` finds for it: that of the caller's
            /// plan. Where it finds none, this layer's own limit holds.
            ///
            /// A caller whose plan changes keeps what was used: see
            /// [`Algorithm`](crate::algorithm::Algorithm).
            pub fn limit_for<L2>(self, limit: L2) -> $layer<$($generic,)? B, K, C, R, L2> {
                self.with_policy(|policy| policy.limit(limit))
            }

            /// Lets every request through at once, and only counts and reports what would have
            /// been refused: to try a limit out on real traffic.
            pub fn dry_run(mut self) -> Self {
                self.policy.exceptions.dry_run = true;
                self
            }

            /// Decides what happens to a request when the backend cannot decide. By default it is
            /// refused.
            pub fn on_backend_error(mut self, then: OnBackendError) -> Self {
                self.policy.exceptions.on_backend_error = then;
                self
            }

            /// Decides what happens to a request without a key. By default all such requests are
            /// counted together.
            pub fn on_missing_key(mut self, then: OnMissingKey) -> Self {
                self.policy.exceptions.on_missing_key = then;
                self
            }

            /// A handle on what decides: to change the limit while it works, to look at how keys
            /// stand, to decide without a service. Take it last: the settings of a limit and its
            /// backend make another.
            pub fn limiter(&self) -> Limiter<$algorithm, B> {
                self.limiter.clone()
            }

            /// Looks for what cannot be meant: in the settings, and in what the first requests of
            /// its services showed. [`layer`](tower_layer::Layer::layer) and the services do so
            /// too, but can only report what they find, and a release build without the feature
            /// `tracing` has nowhere to. So keep a clone, and ask it once requests have come.
            ///
            /// # Errors
            ///
            /// - The [largest cost](Self::largest_cost) is more than the limit ever holds, in
            ///   whatever order the two were set. A limit that holds nothing is closed on purpose.
            /// - A request was [counted twice](ConfigError::CountedTwice).
            pub fn check(&self) -> Result<(), ConfigError> {
                self.check_settings()?;
                self.policy.exceptions.unlooked.check()
            }

            fn check_settings(&self) -> Result<(), ConfigError> {
                self.largest.check(self.limiter.limit().algorithm().capacity())
            }

            #[allow(dead_code, reason = "not every layer has settings of its own")]
            fn with_algorithm(self, algorithm: $algorithm) -> Self {
                let limit = Limit::new(self.limiter.limit().name().clone(), algorithm);
                let limiter = Limiter::of(limit, self.limiter.backend().clone());
                Self { limiter, ..self }
            }

            fn with_policy<K2, C2, R2, L2>(
                self,
                change: impl FnOnce(Policy<K, C, R, L>) -> Policy<K2, C2, R2, L2>,
            ) -> $layer<$($generic,)? B, K2, C2, R2, L2> {
                let Self { limiter, policy, largest } = self;
                $layer { limiter, policy: change(policy), largest }
            }
        }

        impl<$($generic: Algorithm,)? B, K, C, R, L> $layer<$($generic,)? B, K, C, R, L>
        where
            B: Backend<$algorithm>,
        {
            /// Lets a request wait its turn instead of being refused, at most so long: first come,
            /// first served, a line for each key. Make all other settings before.
            pub fn wait(
                self,
                max_wait: Duration,
            ) -> WaitingLayer<$algorithm, B, K, C, R, UpToMaxWait, L> {
                self.queue(|queue| queue.max_wait(max_wait))
            }

            /// Lets a request wait its turn, in a queue of these settings. Make those of the layer
            /// before.
            pub fn queue(
                self,
                settings: impl FnOnce(QueueBuilder<$algorithm, B>) -> QueueBuilder<$algorithm, B>,
            ) -> WaitingLayer<$algorithm, B, K, C, R, UpToMaxWait, L> {
                if let Err(error) = self.check_settings() {
                    observe::misused(&error);
                }
                let queue = settings(QueueBuilder::new(self.limiter)).build();
                WaitingLayer::new(queue, self.policy)
            }
        }

        impl<S, $($generic: Algorithm,)? B, K, C, R, L> tower_layer::Layer<S>
            for $layer<$($generic,)? B, K, C, R, L>
        where
            B: Backend<$algorithm>,
            K: Clone,
            C: Clone,
            R: Clone,
            L: Clone,
        {
            type Service = RateLimit<S, Limiter<$algorithm, B>, Policy<K, C, R, L>>;

            fn layer(&self, inner: S) -> Self::Service {
                if let Err(error) = self.check_settings() {
                    self.policy.exceptions.unlooked.tell(error);
                }
                RateLimit::new(inner, self.limiter.clone(), self.policy.clone())
            }
        }
    };
}
use shared_layer_items;

/// What the doors import for [`shared_layer_items`].
mod shared {
    pub(super) use std::time::Duration;

    pub(super) use crate::{
        algorithm::Algorithm,
        backend::{Backend, Local},
        cost::Cost,
        error::ConfigError,
        limiter::{Limit, Limiter},
        name::PolicyName,
        observe,
        policy::{
            Fail, Global, LargestCost, OnBackendError, OnMissingKey, Policy, SameForAll, Uniform,
        },
        queue::QueueBuilder,
        service::RateLimit,
        waiting::{UpToMaxWait, WaitingLayer},
    };
}
