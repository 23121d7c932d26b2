//! What the layers beside `RateLimit` have in common: a request goes through a gate, where it may
//! have to wait, and holds a pass until its response is there.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    maybe_ready::MaybeReady,
    observe::nesting,
    policy::{Answer, Subject},
    rejection::Rejection,
};

/// Lets requests through, or does not. A clone is a handle.
pub(crate) trait Gate<Req>: Clone {
    /// What a request holds until its response is there.
    type Pass;
    /// The wait of a request whose pass is not there at once.
    type Wait: Future<Output = Result<Self::Pass, Rejection>>;

    /// Takes a request to the gate, now that it is known whom it is counted against.
    fn enter(&mut self, subject: Subject, request: &Req) -> MaybeReady<Self::Wait>;

    /// The store that was charged for a request, if it is one of those that are
    /// [looked at](nesting).
    fn charged(&self, _: &Self::Pass) -> Option<usize> {
        None
    }
}

/// What came of a request, and its pass if it was let through.
type Through<Res, Err, P> = (Result<Res, Err>, Option<P>);

pin_project! {
    /// A request's way through a gate and the service behind it.
    ///
    /// A request that has to wait does so in a box of its own.
    pub(crate) struct Gated<S, Req, F, G>
    where
        S: Service<Req>,
        G: Gate<Req>,
    {
        #[pin]
        state: State<S, Req, F, G>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, F, G>
    where
        S: Service<Req>,
        G: Gate<Req>,
    {
        // The service that was made ready, and what it waits with.
        Waiting { parked: Option<(S, Req)>, gate: G, until: Pin<Box<Until<F, G::Wait>>> },
        Running { #[pin] response: S::Future, pass: Option<G::Pass>, charged: Option<usize> },
        Answered { answer: Option<Result<S::Response, S::Error>> },
    }
}

pin_project! {
    /// What a request waits for.
    #[project = UntilProjection]
    enum Until<F, W> {
        Identified { #[pin] key: F },
        Passed { #[pin] wait: W },
    }
}

impl<S, Req, F, G> Gated<S, Req, F, G>
where
    S: Service<Req> + Clone,
    G: Gate<Req>,
{
    /// Takes a request to the gate, with `service` that was made ready for it.
    pub(crate) fn begin<R: Answer<Req, S::Response, S::Error>>(
        service: &mut S,
        gate: &mut G,
        answer: &R,
        key: MaybeReady<F>,
        request: Req,
    ) -> Self
    where
        F: Future<Output = Subject>,
    {
        let until = match key.try_into_ready() {
            Err(key) => Until::Identified { key },
            Ok(subject) => match gate.enter(subject, &request).try_into_ready() {
                Ok(Ok(pass)) => {
                    return Self { state: State::running(service, request, gate, pass) };
                }
                Ok(Err(rejection)) => {
                    // What its readiness holds is free again: who was refused may not call again.
                    *service = service.clone();
                    let answer = Some(answer.refuse(&request, rejection));
                    return Self { state: State::Answered { answer } };
                }
                Err(wait) => Until::Passed { wait },
            },
        };
        // The service that was made ready is the one that is called.
        let clone = service.clone();
        let ready = std::mem::replace(service, clone);
        let (parked, gate, until) = (Some((ready, request)), gate.clone(), Box::pin(until));
        Self { state: State::Waiting { parked, gate, until } }
    }
}

impl<S, Req, F, G> State<S, Req, F, G>
where
    S: Service<Req>,
    G: Gate<Req>,
{
    fn running(service: &mut S, request: Req, gate: &G, pass: G::Pass) -> Self {
        let charged = gate.charged(&pass);
        let response = nesting::inside(charged, || service.call(request));
        Self::Running { response, pass: Some(pass), charged }
    }
}

impl<S, Req, F, G> Gated<S, Req, F, G>
where
    S: Service<Req>,
    F: Future<Output = Subject>,
    G: Gate<Req>,
{
    /// What the service made of a request and its pass, or the answer to one that was not let
    /// through.
    pub(crate) fn poll<R: Answer<Req, S::Response, S::Error>>(
        self: Pin<&mut Self>,
        answer: &R,
        context: &mut Context<'_>,
    ) -> Poll<Through<S::Response, S::Error, G::Pass>> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                // ## Waiting => (Running | Answered)
                //
                // The request goes on with the service that was made ready for it, or not at all.
                StateProjection::Waiting { parked, gate, until } => {
                    const PARKED: &str = "a request is parked until its wait ends";
                    let waited = match until.as_mut().project() {
                        // The key is known. From here on it is as if it had been known at once.
                        UntilProjection::Identified { key } => {
                            let subject = ready!(key.poll(context));
                            let (_, request) = parked.as_ref().expect(PARKED);
                            match gate.enter(subject, request).try_into_ready() {
                                Ok(entered) => entered,
                                Err(wait) => {
                                    until.set(Until::Passed { wait });
                                    continue;
                                }
                            }
                        }
                        UntilProjection::Passed { wait } => ready!(wait.poll(context)),
                    };
                    let (mut service, request) = parked.take().expect(PARKED);
                    match waited {
                        Ok(pass) => State::running(&mut service, request, gate, pass),
                        Err(rejection) => {
                            State::Answered { answer: Some(answer.refuse(&request, rejection)) }
                        }
                    }
                }
                // Dropped here, the pass goes with it.
                StateProjection::Running { response, pass, charged } => {
                    let response = ready!(nesting::inside(*charged, || response.poll(context)));
                    return Poll::Ready((response, pass.take()));
                }
                StateProjection::Answered { answer } => {
                    let answer = answer.take();
                    let answer = answer.expect("a future is not polled after it is ready");
                    return Poll::Ready((answer, None));
                }
            };
            this.state.set(next);
        }
    }

    /// Where the request is, for `Debug`.
    pub(crate) const fn stage(&self) -> &'static str {
        match &self.state {
            State::Waiting { .. } => "Waiting",
            State::Running { .. } => "Running",
            State::Answered { .. } => "Answered",
        }
    }
}
