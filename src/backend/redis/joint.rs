//! Limits on several keys, decided on in one call.

use std::{
    any::Any,
    sync::LazyLock,
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};
use redis::Value;

use super::{
    Redis,
    call::{self, Script},
    name,
    script::{self, Fields, JOINT, Job, Scripted, Verdict},
    source::Source,
};
use crate::{
    backend::Joint,
    cost::Cost,
    decision::{Decision, Demand},
    error::BackendError,
    time::{Clock, SystemClock, Timestamp},
};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(JOINT));

/// What of a limit's demand does not depend on its algorithm, and the limit itself.
struct Errand {
    slot: u16,
    limit: Box<dyn Limit>,
}

/// A limit that is asked for all of a cost, whatever its algorithm and its source.
trait Limit: Send {
    fn name(&self) -> &[u8];

    /// The name of the mark by which a lost key is known.
    fn mark(&self) -> Option<Vec<u8>>;

    /// The place of its algorithm in the script, and its job.
    fn argument(&self, now: Timestamp) -> (u64, Vec<u8>);

    /// The time to decide by, if it is not the server's.
    fn given_time(&self) -> Option<Timestamp>;

    /// Calls the script over this limit's connection.
    fn call(
        &self,
        slot: u16,
        keys: Vec<Vec<u8>>,
        arguments: Vec<Vec<u8>>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Value, BackendError>>;

    /// Reads what the server says of it.
    fn read(
        self: Box<Self>,
        asked: Instant,
        now: Timestamp,
        fields: &mut Fields<'_>,
    ) -> Result<Result<Box<dyn Told>, BackendError>, BackendError>;
}

/// What the server says of a limit, by itself.
trait Told: Send {
    fn is_granted(&self) -> bool;

    /// The decision, if the cost was taken, or if it was only looked at because another refused.
    fn decision(self: Box<Self>, is_taken: bool) -> Result<Decision, BackendError>;
}

struct OfLimit<A: Scripted, S: Source> {
    redis: Redis<A, S>,
    name: Vec<u8>,
    algorithm: A,
    /// In the form of the server.
    on_server: A,
    cost: Cost,
}

struct OfVerdict<A: Scripted, S: Source> {
    limit: OfLimit<A, S>,
    verdict: Verdict<A>,
    asked: Instant,
}

impl<A: Scripted, S: Source> Redis<A, S> {
    /// Not for a key whose refusal is remembered: that needs no call.
    pub(super) fn jointly(&self, algorithm: &A, name: Vec<u8>, cost: Cost) -> Option<Joint> {
        let caller = self.caller();
        let server = caller.source.id()?;
        if let Some(refusals) = &caller.refusals {
            let demand = Demand::exactly(cost);
            let known = refusals.answer(&name, algorithm, &demand, crate::time::now);
            if known.is_some() {
                return None;
            }
        }
        let slot = if S::HAS_SLOTS { name::slot(&name) } else { 0 };
        let (algorithm, on_server) = (algorithm.clone(), algorithm.on_server());
        let limit = OfLimit { redis: self.clone(), name: name.clone(), algorithm, on_server, cost };
        let errand = Errand { slot, limit: Box::new(limit) };
        Some(Joint::new((server, slot), name, Box::new(errand), carry, caller.timeout))
    }
}

type Answers = Result<Vec<Result<Decision, BackendError>>, BackendError>;

/// Decides on what [`Redis::jointly`] has made, for one server and slot.
fn carry(errands: Vec<Box<dyn Any + Send>>, within: Duration) -> BoxFuture<'static, Answers> {
    let errands: Vec<Errand> = errands
        .into_iter()
        .filter_map(|errand| errand.downcast().ok().map(|errand| *errand))
        .collect();
    decide(errands, within).boxed()
}

async fn decide(errands: Vec<Errand>, within: Duration) -> Answers {
    let Some(first) = errands.first() else { return Ok(Vec::new()) };
    let given = first.limit.given_time();
    let about = given.unwrap_or_else(|| SystemClock.now());
    let mut keys: Vec<Vec<u8>> =
        errands.iter().map(|errand| errand.limit.name().to_vec()).collect();
    let mut arguments = Vec::with_capacity(errands.len() + 1);
    for errand in &errands {
        let mark = errand.limit.mark().map_or(0, |mark| {
            keys.push(mark);
            keys.len()
        });
        let (kind, job) = errand.limit.argument(about);
        let begin = [kind as f64, mark as f64].map(f64::to_le_bytes).concat();
        arguments.push([begin, job].concat());
    }
    arguments.extend(given.map(script::given_time));
    let asked = crate::time::now();
    let reply = first.limit.call(first.slot, keys, arguments, within).await?;

    let mut fields = Fields::of(&reply)?;
    let now = fields.time()?;
    let mut told = Vec::with_capacity(errands.len());
    for errand in errands {
        // What fails for one fails for all: nothing was taken.
        told.push(errand.limit.read(asked, now, &mut fields)??);
    }
    fields.end()?;
    let is_taken = told.iter().all(|told| told.is_granted());
    Ok(told.into_iter().map(|told| told.decision(is_taken)).collect())
}

impl<A: Scripted, S: Source> Limit for OfLimit<A, S> {
    fn name(&self) -> &[u8] {
        &self.name
    }

    fn mark(&self) -> Option<Vec<u8>> {
        let caller = self.redis.caller();
        caller.strict_start.then(|| caller.names.mark(&self.name))
    }

    fn argument(&self, now: Timestamp) -> (u64, Vec<u8>) {
        let job = Job::Demand(Demand::exactly(self.cost));
        (A::KIND, script::argument(&self.on_server, &job, now))
    }

    fn given_time(&self) -> Option<Timestamp> {
        self.redis.caller().given_time()
    }

    fn call(
        &self,
        slot: u16,
        keys: Vec<Vec<u8>>,
        arguments: Vec<Vec<u8>>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Value, BackendError>> {
        let redis = self.redis.clone();
        async move {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            call::call(&redis.caller().source, &SCRIPT, slot, &keys, &arguments, within).await
        }
        .boxed()
    }

    fn read(
        self: Box<Self>,
        asked: Instant,
        now: Timestamp,
        fields: &mut Fields<'_>,
    ) -> Result<Result<Box<dyn Told>, BackendError>, BackendError> {
        let job = Job::Demand(Demand::exactly(self.cost));
        let verdict = match Verdict::read(&self.on_server, &job, &self.name, now, fields)? {
            Ok(verdict) => verdict.ok_or_else(script::malformed)?,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(Box::new(OfVerdict { limit: *self, verdict, asked })))
    }
}

impl<A: Scripted, S: Source> Told for OfVerdict<A, S> {
    fn is_granted(&self) -> bool {
        self.verdict.is_granted()
    }

    fn decision(self: Box<Self>, is_taken: bool) -> Result<Decision, BackendError> {
        let Self { limit, mut verdict, asked } = *self;
        let demand = if is_taken { Demand::exactly(limit.cost) } else { Demand::peek(limit.cost) };
        let decision = verdict.next(&demand)?;
        if !decision.is_allowed() {
            let OfLimit { redis, name, algorithm, on_server, .. } = &limit;
            redis.caller().remember(name, algorithm, on_server, verdict, asked);
        }
        Ok(decision)
    }
}
