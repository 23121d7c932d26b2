//! What a tenant's plan lets through.

use axum::body::Body;
use http::{Request, Response};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_quota::{
    Cost, Limiter, PolicyName, Quota,
    algorithm::{Plan, TokenBucket},
    backend::DynBackend,
    http::FromBody,
    reserve::{End, Reading, ReserveLayer},
    time::{Clock as _, SystemClock},
    upstream::UsageReading,
};

use crate::{
    call::Call,
    live::{Next, into_body},
};

/// The limits of a plan.
pub(crate) fn limits(quotas: &[(&'static str, usize, Quota)]) -> Result<Plan, BoxError> {
    // Limits are known by their names: what was used of one that is taken away is there if it comes
    // back.
    let mut plan = Plan::new();
    for (name, dimension, quota) in quotas {
        let name = PolicyName::from_static(name);
        plan = plan.limit_on(*dimension, name, TokenBucket::new(*quota));
    }
    if quotas.is_empty() {
        // A plan has one limit at least: nobody reaches this one.
        let never = Quota::per_second(1_000_000_000);
        plan = plan.limit(PolicyName::from_static("none"), TokenBucket::new(never));
    }
    Ok(plan.build()?)
}

/// The limits of a plan, each by itself: to look at one says nothing of the others.
pub(crate) fn apart(
    quotas: &[(&'static str, usize, Quota)],
) -> Result<Vec<(&'static str, Plan)>, BoxError> {
    let each = quotas.iter().map(|quota| Ok((quota.0, limits(std::slice::from_ref(quota))?)));
    each.collect()
}

/// The service of a plan: reserves what a call may cost, and settles it by what it did cost.
pub(crate) fn limited(limiter: Limiter<Plan, DynBackend<Plan>>) -> Next {
    let by_model = service_fn(|request: Request<Body>| async {
        let call =
            request.extensions().get::<Call>().cloned().ok_or("a call without its caller")?;
        call.waits();
        let route = call.route();
        let service = if call.counts_only() { &route.counting } else { &route.service };
        let answer = service.clone().oneshot(request).await;
        call.ended();
        let mut answer = answer?;
        answer.extensions_mut().insert(call);
        Ok::<_, BoxError>(answer)
    });
    let key = |request: &Request<Body>| {
        request.extensions().get::<Call>().map(|call| call.tenant().key.clone())
    };
    let cost = |request: &Request<Body>| {
        request.extensions().get::<Call>().map_or(Cost::ONE, Call::reserve)
    };
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_response(into_body)
            .layer(ReserveLayer::new(limiter).key(key).cost(cost).settle(FromBody(Spent::of)))
            .service(by_model),
    )
}

/// Reads what an answer cost its tenant: a request, and its tokens.
struct Spent {
    call: Option<Call>,
    /// Nothing, where there is no answer: that costs a request, and no tokens.
    reading: Option<UsageReading>,
}

impl Spent {
    fn of(response: &Response<Body>) -> Self {
        let call = response.extensions().get::<Call>().cloned();
        let answered = call.as_ref().filter(|_| response.status().is_success());
        let answered = answered.filter(|call| !call.counts_only());
        let reading = answered.map(|call| {
            let reading = UsageReading::of(&call.route().profile, response.headers());
            reading.estimated(&call.estimate())
        });
        Self { call, reading }
    }
}

impl Reading for Spent {
    fn data(&mut self, data: &[u8]) {
        if let Some(reading) = &mut self.reading {
            reading.data(data);
        }
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        let call = self.call.as_ref()?;
        let Some(reading) = &mut self.reading else { return Some(Cost::new(1)) };
        let usage = reading.usage();
        let Some(output) = usage.output else {
            // Asked so that it knows where the answer ends: an error inside is told after that.
            let _ = reading.cost(end);
            let now = SystemClock.now();
            if reading.error(now, now).is_some() {
                return Some(Cost::new(1));
            }
            // Answered, and nobody has said with how much: one that goes on elsewhere, or thought
            // for long before it was cut off.
            call.spent(call.reserve().get(1));
            return None;
        };
        let input = usage.input.unwrap_or_else(|| call.estimate().input);
        let tokens = input.saturating_add(output);
        call.spent(tokens);
        Some(Cost::new(1).with(1, tokens))
    }
}
