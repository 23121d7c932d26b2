//! One request's way: estimated, admitted, sent, observed, settled.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts, response};
use http_body::Body;
use tokio::time::timeout;
use tower_service::Service;

use super::{
    account::Hold,
    encoding::ask_for_plain,
    estimates::{Estimates, Peeked},
    inside::is_failure,
    metering::Metering,
    model::model_of,
    observation::{Answer, Class, Observation, Stop},
    pool::{Question, Sendable},
    profile::Profile,
    reading::is_json,
    service::{Settings, UpstreamBody},
};
use crate::{
    algorithm::Plan,
    backend::Backend,
    cost::Cost,
    http::{MeasuredBody, PeekedBody},
    policy,
    reserve::Reservation,
    time::{Timestamp, timer_now},
    waiting::AskOf,
};

pub(super) struct Exchange<S, B: Backend<Plan>, R, W> {
    service: S,
    settings: Arc<Settings<B, R, W>>,
}

impl<S, B: Backend<Plan>, R, W> Exchange<S, B, R, W> {
    pub(super) const fn new(service: S, settings: Arc<Settings<B, R, W>>) -> Self {
        Self { service, settings }
    }

    pub(super) async fn run<ReqBody, ResBody>(
        mut self,
        request: Request<ReqBody>,
    ) -> Result<Response<UpstreamBody<ResBody>>, S::Error>
    where
        S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>>,
        R: policy::Answer<Request<PeekedBody<ReqBody>>, Response<UpstreamBody<ResBody>>, S::Error>,
        W: AskOf<Parts> + Sync,
        ReqBody: Body<Data = Bytes>,
        ResBody: Body<Data = Bytes>,
    {
        let settings = Arc::clone(&self.settings);
        let Settings { pool, answer, ask, max_peek, fails_over, keeps_encoding, counter } =
            &*settings;
        let (mut parts, body) = request.into_parts();
        let mut body = PeekedBody::unread(body);
        let is_short = body.fill(*max_peek).await;
        // One that is here in one piece is, however long it is.
        let is_whole = is_short || body.is_here();
        let (peeked, can_be_repeated) = (body.peek(), is_short && body.is_data());
        let length = body.size_hint().exact();

        let model = model_of(&parts.uri, &peeked);
        // However many accounts are asked, nobody waits longer than for one.
        let since = timer_now();
        let estimates = {
            let model = model.as_deref();
            let peeked = Peeked { bytes: &peeked, is_whole, is_short, length, model };
            Estimates::of(pool.profiles(), counter.as_ref(), &peeked).await
        };
        let estimate = |profile: &Profile| estimates.by(profile);
        let mut tried = Vec::new();
        let mut so_far = None;
        loop {
            let ask = |cost: Cost| ask.ask_of(&parts, cost);
            let question =
                Question { model: model.as_deref(), estimate: &estimate, ask: &ask, since };
            let admitted = pool.admit(&question, &tried).await;
            let Sendable { member, mut hold } = match admitted {
                Ok(sendable) => sendable,
                Err(rejection) => {
                    // What a provider says of its refusal is worth more than that of another none
                    // can be had.
                    if let Some(so_far) = so_far {
                        return so_far;
                    }
                    return answer.refuse(&Request::from_parts(parts, body), rejection);
                }
            };
            if let Some(so_far) = so_far.take() {
                // It may hold what the service needs to be ready.
                drop(so_far);
                poll_fn(|context| self.service.poll_ready(context)).await?;
            }
            tried.push(member);
            let again = (can_be_repeated && pool.has_another(&tried)).then(|| parts.clone());
            if !keeps_encoding {
                ask_for_plain(&mut parts.headers);
            }
            pool.prepare(member, &mut parts);
            let is_safe = parts.method.is_safe();
            hold.send();
            let sent = timer_now();
            let came = self.service.call(Request::from_parts(parts, body)).await;
            let (came, has_failed, stop) = match came {
                Ok(response) => {
                    let (response, stop) = observe(response, hold, is_safe).await;
                    let has_failed = stop.is_none() && is_failing(response.status());
                    (Ok(response), has_failed, stop)
                }
                Err(error) => {
                    // What is held counts as reserved: nobody knows what became of it.
                    drop(hold);
                    (Err(error), true, None)
                }
            };
            if *fails_over {
                pool.came_to(member, sent, has_failed);
            }
            let goes_on = stop.map_or(has_failed && *fails_over, |stop| is_for_another(&stop));
            let Some(original) = again.filter(|_| goes_on) else {
                return came;
            };
            so_far = Some(came);
            parts = original;
            body = PeekedBody::of_bytes(peeked.clone());
        }
    }
}

/// Tells the account what the answer says, and sets going what settles it. `is_safe`: the request
/// only reads what is there.
async fn observe<B: Backend<Plan>, ResBody: Body<Data = Bytes>>(
    response: Response<ResBody>,
    mut hold: Hold<B>,
    is_safe: bool,
) -> (Response<UpstreamBody<ResBody>>, Option<Stop>) {
    let received = hold.now();
    let (parts, body) = response.into_parts();
    let mut body = PeekedBody::unread(body);
    let is_failure = is_failure(parts.status);
    let is_read = is_failure || (!is_safe && may_refuse(hold.profile(), &parts, &body));
    let mut head = Head { hold: &mut hold, parts: &parts, received, is_told: false };
    if is_read {
        // What a provider says of a refusal it says at once. If not, others are not sent into it,
        // and the caller waits no longer.
        let mut read = pin!(body.fill(Observation::MAX_BODY));
        if timeout(AT_ONCE, read.as_mut()).await.is_err() {
            if is_failure {
                head.warn();
            }
            drop(timeout(READ, read).await);
        }
    }
    let stop = head.tell(&body.peek());
    drop(head);
    let response = Response::from_parts(parts, body);
    // A refusal with a success is read to its end by now: nothing was used, whether another account
    // is asked in its place or not.
    if is_failure || stop.is_some() {
        hold.fail();
        return (MeasuredBody::measuring(response, None), stop);
    }
    let metering = Metering::new(&hold, response.headers(), is_safe);
    (MeasuredBody::measuring(response, Some((metering, Reservation::of(hold)))), stop)
}

/// The head of an answer whose body is being read. If its caller goes away meanwhile, what a
/// refusal says is told all the same.
struct Head<'h, B: Backend<Plan>> {
    hold: &'h mut Hold<B>,
    parts: &'h response::Parts,
    received: Timestamp,
    is_told: bool,
}

impl<B: Backend<Plan>> Head<'_, B> {
    /// Tells the account what it says, with so much of the body.
    fn tell(&mut self, body: &[u8]) -> Option<Stop> {
        self.is_told = true;
        let (sent, received) = (self.hold.sent(), self.received);
        let answer = answer(self.parts, body, sent, received);
        self.hold.answered(&answer).stop
    }

    /// Its body takes longer.
    fn warn(&mut self) {
        let (sent, received) = (self.hold.sent(), self.received);
        self.hold.warned(&answer(self.parts, b"", sent, received));
    }
}

fn answer<'a>(
    parts: &'a response::Parts,
    body: &'a [u8],
    sent: Timestamp,
    received: Timestamp,
) -> Answer<'a> {
    Answer { status: parts.status, headers: &parts.headers, body, sent, received }
}

impl<B: Backend<Plan>> Drop for Head<'_, B> {
    fn drop(&mut self) {
        // What may be a refusal in spite of its status is no good answer as long as nobody knows.
        if !self.is_told && is_failure(self.parts.status) {
            drop(self.tell(b""));
        }
    }
}

/// Whether a success may be a refusal in truth, and is short enough to wait for its end.
fn may_refuse<B: Body<Data = Bytes>>(
    profile: &Profile,
    parts: &response::Parts,
    body: &PeekedBody<B>,
) -> bool {
    let length = body.size_hint().exact();
    profile.rules().iter().any(|rule| rule.status.contains(&parts.status.as_u16()))
        && is_json(&parts.headers)
        && length.is_some_and(|length| length <= Observation::MAX_BODY as u64)
}

/// Whether another account may have the answer that this provider, or this key, does not have.
fn is_failing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::UNAUTHORIZED
}

/// Whether another account may do better.
const fn is_for_another(stop: &Stop) -> bool {
    !matches!(stop.class, Class::NeverAdmissible)
}

/// How long the body of a refusal is waited for.
const READ: Duration = Duration::from_secs(2);
/// A body that is there by then came with its head.
const AT_ONCE: Duration = Duration::from_millis(50);
