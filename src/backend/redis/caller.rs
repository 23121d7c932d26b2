//! Batches of decisions and corrections, on their way to the server and back.

use std::time::Duration;

use super::{
    call::{self, Script},
    coalesce::Carrier,
    name::Names,
    refusals::{Refusal, Refusals},
    script::{self, Fields, Job, Scripted},
    source::Source,
};
use crate::{decision::Decision, error::BackendError};

/// Carries batches to the server.
pub(super) struct Caller<A: Scripted, S> {
    pub(super) source: S,
    pub(super) script: Script,
    pub(super) names: Names,
    pub(super) timeout: Duration,
    pub(super) refusals: Option<Refusals<A>>,
    #[cfg(feature = "testing")]
    pub(super) clock: Option<crate::time::ManualClock>,
}

/// A job for the server.
pub(super) struct Errand<A> {
    pub(super) name: Vec<u8>,
    /// In the form of the server.
    pub(super) algorithm: A,
    pub(super) job: Job,
}

/// What became of an errand: the decision, if it was a demand.
pub(super) type Done = Result<Option<Decision>, BackendError>;

impl<A: Scripted, S: Source> Carrier for Caller<A, S> {
    type Job = Errand<A>;
    type Reply = Done;

    async fn carry(&self, slot: u16, errands: Vec<Errand<A>>) -> Vec<Done> {
        let done = match self.call(slot, &errands).await {
            Ok(done) => done,
            Err(error) => errands.iter().map(|_| Err(error.clone())).collect(),
        };
        if let Some(refusals) = &self.refusals {
            // Something has come back, or may have: what was refused before need not be refused now.
            let corrected = errands.iter().filter(|errand| matches!(errand.job, Job::Settle(..)));
            corrected.for_each(|errand| refusals.forget(&errand.name));
        }
        done
    }
}

impl<A: Scripted, S: Source> Caller<A, S> {
    async fn call(&self, slot: u16, errands: &[Errand<A>]) -> Result<Vec<Done>, BackendError> {
        let keys: Vec<&[u8]> = errands.iter().map(|errand| errand.name.as_slice()).collect();
        let mut arguments = Vec::with_capacity(errands.len() + 1);
        arguments.push(self.given_time().into_bytes());
        arguments
            .extend(errands.iter().map(|errand| script::argument(&errand.algorithm, &errand.job)));
        let asked = crate::time::now();
        let script = &self.script;
        let reply = call::call(&self.source, script, slot, &keys, &arguments, self.timeout).await?;

        let mut fields = Fields::of(&reply)?;
        let now = fields.time()?;
        let mut all = Vec::with_capacity(errands.len());
        for Errand { name, algorithm, job } in errands {
            let done = script::done(algorithm, job, now, &mut fields)?;
            all.push(done.map(|done| {
                let (decision, state) = done?;
                if let (Some(refusals), Some(state)) = (&self.refusals, state) {
                    let algorithm = algorithm.clone();
                    refusals.remember(name, Refusal { algorithm, state, at: now, asked });
                }
                Some(decision)
            }));
        }
        Ok(all)
    }

    /// The time to decide by, if it is not the server's.
    fn given_time(&self) -> String {
        #[cfg(feature = "testing")]
        if let Some(clock) = &self.clock {
            let now = crate::time::Clock::now(clock);
            return (now.as_nanos() / 1_000).to_string();
        }
        String::new()
    }
}
