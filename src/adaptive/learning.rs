//! What the services have in common that hold back and learn: written once.

/// Writes a service that asks its settings whether a request is sent, and lets them learn from the
/// answer; and the future of that answer.
macro_rules! learning_service {
    (
        $(#[$about_service:meta])*
        $service:ident by $settings:ident;

        $(#[$about_future:meta])*
        $future:ident
    ) => {
        $(#[$about_service])*
        pub struct $service<S, C, R, K = crate::policy::Global> {
            inner: S,
            settings: std::sync::Arc<$settings<C, R, K>>,
        }

        impl<S, C, R, K> $service<S, C, R, K> {
            pub(super) const fn new(
                inner: S,
                settings: std::sync::Arc<$settings<C, R, K>>,
            ) -> Self {
                Self { inner, settings }
            }

            /// The inner service.
            pub const fn get_ref(&self) -> &S {
                &self.inner
            }

            /// The inner service, to change.
            pub const fn get_mut(&mut self) -> &mut S {
                &mut self.inner
            }

            /// The inner service alone.
            pub fn into_inner(self) -> S {
                self.inner
            }
        }

        impl<S, Req, C, R, K> tower_service::Service<Req> for $service<S, C, R, K>
        where
            S: tower_service::Service<Req> + Clone,
            C: crate::adaptive::classify::Classify<S::Response, S::Error>,
            R: crate::policy::Answer<Req, S::Response, S::Error>,
            K: crate::policy::KeyOf<Req>,
        {
            type Response = S::Response;
            type Error = S::Error;
            type Future = $future<S, Req, C, R, K>;

            fn poll_ready(
                &mut self,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), S::Error>> {
                self.inner.poll_ready(context)
            }

            fn call(&mut self, request: Req) -> Self::Future {
                let settings = std::sync::Arc::clone(&self.settings);
                let crate::policy::Policy { key, answer, .. } = &settings.policy;
                let key = key.key_of(&request);
                let (inner, gate) = (&mut self.inner, &mut self.settings);
                let gated = crate::service::gated::Gated::begin(inner, gate, answer, key, request);
                $future { gated, settings }
            }
        }

        impl<S: Clone, C, R, K> Clone for $service<S, C, R, K> {
            fn clone(&self) -> Self {
                Self {
                    inner: self.inner.clone(),
                    settings: std::sync::Arc::clone(&self.settings),
                }
            }
        }

        impl<S: std::fmt::Debug, C, R, K> std::fmt::Debug for $service<S, C, R, K> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($service))
                    .field("inner", &self.inner)
                    .finish_non_exhaustive()
            }
        }

        pin_project_lite::pin_project! {
            $(#[$about_future])*
            #[must_use = "futures do nothing unless polled"]
            pub struct $future<S, Req, C, R, K = crate::policy::Global>
            where
                S: tower_service::Service<Req>,
                K: crate::policy::KeyOf<Req>,
            {
                #[pin]
                gated: crate::service::gated::Gated<
                    S,
                    Req,
                    K::Future,
                    std::sync::Arc<$settings<C, R, K>>,
                >,
                settings: std::sync::Arc<$settings<C, R, K>>,
            }
        }

        impl<S, Req, C, R, K> std::future::Future for $future<S, Req, C, R, K>
        where
            S: tower_service::Service<Req>,
            C: crate::adaptive::classify::Classify<S::Response, S::Error>,
            R: crate::policy::Answer<Req, S::Response, S::Error>,
            K: crate::policy::KeyOf<Req>,
        {
            type Output = Result<S::Response, S::Error>;

            fn poll(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                let this = self.project();
                let answer = &this.settings.policy.answer;
                let (result, attempt) = std::task::ready!(this.gated.poll(answer, context));
                this.settings.learn(attempt.flatten(), result.as_ref());
                std::task::Poll::Ready(result)
            }
        }

        impl<S, Req, C, R, K> std::fmt::Debug for $future<S, Req, C, R, K>
        where
            S: tower_service::Service<Req>,
            K: crate::policy::KeyOf<Req>,
        {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($future)).field(&self.gated.stage()).finish()
            }
        }
    };
}

pub(super) use learning_service;
