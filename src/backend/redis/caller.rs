//! Batches of decisions and corrections, on their way to the server and back.

use std::{
    collections::HashMap,
    iter, slice,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use tokio::time::Instant as Deadline;

use super::{
    call::{self, Script},
    coalesce::Carrier,
    name::Names,
    refusals::{Refusal, Refusals},
    script::{self, Fields, Job, Scripted, Verdict},
    source::Source,
};
use crate::{
    decision::{Decision, DemandMode},
    error::BackendError,
    time::{Clock, SystemClock, Timestamp},
};

/// Carries batches to the server.
pub(super) struct Caller<A: Scripted, S> {
    pub(super) source: S,
    pub(super) script: Script,
    pub(super) names: Names,
    pub(super) timeout: Duration,
    /// The most calls at a time in which a batch is taken apart.
    pub(super) in_flight: usize,
    pub(super) strict_start: bool,
    pub(super) refusals: Option<Refusals<A>>,
    #[cfg(feature = "testing")]
    pub(super) clock: Option<crate::time::ManualClock>,
}

/// A job for the server.
pub(super) struct Errand<A> {
    pub(super) name: Vec<u8>,
    pub(super) algorithm: A,
    pub(super) job: Job,
    /// When whoever wants it is to be told at the latest. Known when it was polled.
    pub(super) deadline: Option<Deadline>,
}

/// What became of an errand: the decision, if it was a demand.
pub(super) type Done = Result<Option<Decision>, BackendError>;

impl<A: Scripted, S: Source> Carrier for Caller<A, S> {
    type Job = Errand<A>;
    type Reply = Done;

    async fn carry(&self, slot: u16, mut errands: Vec<Errand<A>>) -> Vec<Done> {
        let now = Deadline::now();
        let late: Vec<bool> =
            errands.iter().map(|errand| self.left(errand, now).is_none()).collect();
        let mut within = self.timeout;
        errands.retain(|errand| {
            let left = self.left(errand, now);
            within = left.map_or(within, |left| left.min(within));
            left.is_some()
        });
        if errands.is_empty() {
            return call::with_late(&late, Vec::new());
        }
        let done = match self.call(slot, &errands, call::deadline(within)).await {
            Ok(done) => done,
            Err(error) => errands.iter().map(|_| Err(error.clone())).collect(),
        };
        if let Some(refusals) = &self.refusals {
            // Something has come back, or may have: what was refused before need not be refused
            // now.
            let corrected = errands.iter().filter(|errand| matches!(errand.job, Job::Settle(..)));
            corrected.for_each(|errand| refusals.forget(&errand.name));
        }
        call::with_late(&late, done)
    }

    fn begins(&self, errand: &mut Errand<A>) {
        errand.deadline = Some(call::deadline(self.timeout));
    }

    fn joins(&self, errand: &Errand<A>, ahead: &Errand<A>) -> bool {
        errand.is_like(ahead) && errand.algorithm.adds_up()
    }
}

impl<A: Scripted, S: Source> Caller<A, S> {
    /// How much of its time is left, if it is enough to leave. A correction leaves all the same:
    /// somebody has what it is about.
    fn left(&self, errand: &Errand<A>, now: Deadline) -> Option<Duration> {
        match errand.job {
            Job::Demand(_) => call::left(errand.deadline, self.timeout, now),
            Job::Settle(..) => Some(self.timeout),
        }
    }

    async fn call(
        &self,
        slot: u16,
        errands: &[Errand<A>],
        deadline: Deadline,
    ) -> Result<Vec<Done>, BackendError> {
        let gathered = gather(errands);
        let heard = match self.ask(slot, errands, &gathered, deadline).await? {
            Some(heard) => heard,
            // The keys are apart while their slot is being moved, which may take long.
            None => self.ask_key_by_key(slot, errands, &gathered, deadline).await,
        };
        let mut done: Vec<Option<Done>> = errands.iter().map(|_| None).collect();
        for (gathered, heard) in gathered.iter().zip(heard) {
            self.tell(errands, gathered, heard, &mut done);
        }
        Ok(done.into_iter().map(|done| done.unwrap_or_else(|| Err(script::malformed()))).collect())
    }

    /// Asks for some jobs in one call. `None` if there are several, and their keys are apart.
    async fn ask(
        &self,
        slot: u16,
        errands: &[Errand<A>],
        gathered: &[Gathered<A>],
        deadline: Deadline,
    ) -> Result<Option<Vec<Heard<A>>>, BackendError> {
        let mut keys: Vec<&[u8]> = gathered.iter().map(|job| errands[job.first].name()).collect();
        let given = self.given_time();
        let about = given.unwrap_or_else(|| SystemClock.now());
        let jobs = gathered
            .iter()
            .map(|gathered| script::argument(&gathered.algorithm, &gathered.job, about));
        let arguments: Vec<Vec<u8>> = jobs.chain(given.map(script::given_time)).collect();
        let mark = self.strict_start.then(|| self.names.mark(keys[0]));
        keys.extend(mark.as_deref());
        let asked = crate::time::now();
        let may_part = gathered.len() > 1;
        let (source, script) = (&self.source, &self.script);
        let reply =
            call::call_until(source, script, slot, &keys, &arguments, deadline, may_part).await?;
        let Some(reply) = reply else { return Ok(None) };

        let mut fields = Fields::of(&reply)?;
        let now = fields.time()?;
        let mut heard = Vec::with_capacity(gathered.len());
        for Gathered { first, job, algorithm, .. } in gathered {
            let name = errands[*first].name();
            let verdict = Verdict::read(algorithm, job, name, now, &mut fields)?;
            heard.push(Heard { verdict, asked });
        }
        fields.end()?;
        Ok(Some(heard))
    }

    /// Asks for each job in a call of its own: for those of one key one after the other, and for no
    /// more keys at a time than calls of a lane may be under way.
    async fn ask_key_by_key(
        &self,
        slot: u16,
        errands: &[Errand<A>],
        gathered: &[Gathered<A>],
        deadline: Deadline,
    ) -> Vec<Heard<A>> {
        let mut keys: Vec<Vec<usize>> = Vec::new();
        let mut place_of = HashMap::new();
        for (place, job) in gathered.iter().enumerate() {
            let key = *place_of.entry(errands[job.first].name()).or_insert(keys.len());
            if key == keys.len() {
                keys.push(Vec::new());
            }
            keys[key].push(place);
        }
        let asking = keys.into_iter().map(|places| async move {
            let mut heard = Vec::with_capacity(places.len());
            for place in places {
                heard
                    .push((place, self.ask_alone(slot, errands, &gathered[place], deadline).await));
            }
            heard
        });
        let asking = stream::iter(asking).buffer_unordered(self.in_flight.max(1));
        let mut heard: Vec<(usize, Heard<A>)> = asking.concat().await;
        heard.sort_unstable_by_key(|(place, _)| *place);
        heard.into_iter().map(|(_, heard)| heard).collect()
    }

    async fn ask_alone(
        &self,
        slot: u16,
        errands: &[Errand<A>],
        gathered: &Gathered<A>,
        deadline: Deadline,
    ) -> Heard<A> {
        let asked = crate::time::now();
        let failed = |error| Heard { verdict: Err(error), asked };
        match self.ask(slot, errands, slice::from_ref(gathered), deadline).await {
            Ok(heard) => {
                let heard = heard.and_then(|mut heard| heard.pop());
                heard.unwrap_or_else(|| failed(script::malformed()))
            }
            Err(error) => failed(error),
        }
    }

    /// Tells each of the errands that travelled as one what became of it.
    fn tell(
        &self,
        errands: &[Errand<A>],
        gathered: &Gathered<A>,
        heard: Heard<A>,
        done: &mut [Option<Done>],
    ) {
        let Heard { verdict, asked } = heard;
        let mut verdict = match verdict {
            Ok(Some(verdict)) => verdict,
            Ok(None) => return gathered.places().for_each(|place| done[place] = Some(Ok(None))),
            Err(error) => {
                return gathered.places().for_each(|place| done[place] = Some(Err(error.clone())));
            }
        };
        let mut refused = false;
        for place in gathered.places() {
            let Job::Demand(demand) = &errands[place].job else { continue };
            let decision = verdict.next(demand);
            refused = decision.as_ref().is_ok_and(|decision| !decision.is_allowed());
            done[place] = Some(decision.map(Some));
        }
        if refused {
            let Errand { name, algorithm, .. } = &errands[gathered.first];
            self.remember(name, algorithm, &gathered.algorithm, verdict, asked);
        }
    }

    /// Remembers a refusal that was asked for at `asked`, if that is wanted and can be done.
    pub(super) fn remember(
        &self,
        name: &[u8],
        algorithm: &A,
        on_server: &A,
        verdict: Verdict<A>,
        asked: Instant,
    ) {
        if let Some(refusals) = &self.refusals
            && on_server.is_sent_whole()
        {
            let (algorithm, on_server) = (algorithm.clone(), on_server.clone());
            let (state, at) = (verdict.state, verdict.now);
            refusals.remember(name, Refusal { algorithm, on_server, state, at, asked });
        }
    }

    /// The time to decide by, if it is not the server's.
    pub(super) fn given_time(&self) -> Option<Timestamp> {
        #[cfg(feature = "testing")]
        if let Some(clock) = &self.clock {
            return Some(clock.now());
        }
        None
    }
}

/// What the server said of a job, and when that was asked for.
struct Heard<A: Scripted> {
    verdict: Result<Option<Verdict<A>>, BackendError>,
    asked: Instant,
}

/// Errands that travel as one.
struct Gathered<A> {
    /// The place of the first among all.
    first: usize,
    others: Vec<usize>,
    /// In the form of the server.
    algorithm: A,
    job: Job,
}

impl<A: Scripted> Gathered<A> {
    fn places(&self) -> impl Iterator<Item = usize> {
        iter::once(self.first).chain(self.others.iter().copied())
    }

    /// Has the errand at `place` travel along, if it wants the same as the first.
    fn take_along(&mut self, errands: &[Errand<A>], place: usize) -> bool {
        let Job::Demand(many) = &mut self.job else { return false };
        let is_one = errands[place].is_like(&errands[self.first]) && self.algorithm.adds_up();
        if is_one {
            self.others.push(place);
            many.most += 1;
            many.mode = DemandMode::TakeUpTo;
        }
        is_one
    }
}

/// Puts together what wants the same of one key: a demand for many costs the server no more than
/// one. The order of what concerns a key stays as it is.
fn gather<A: Scripted>(errands: &[Errand<A>]) -> Vec<Gathered<A>> {
    let mut gathered: Vec<Gathered<A>> = Vec::new();
    // Where the last of each key is; empty until there are several keys.
    let mut last_of: HashMap<&[u8], usize> = HashMap::new();
    for (place, errand) in errands.iter().enumerate() {
        // Mostly all are of one key, or all of different ones.
        if let Some(last) = gathered.last_mut() {
            if last.take_along(errands, place) {
                continue;
            }
            if last_of.is_empty() {
                last_of = HashMap::with_capacity(errands.len());
                let gathered = gathered.iter().enumerate();
                last_of.extend(gathered.map(|(at, job)| (errands[job.first].name(), at)));
            }
            if let Some(&last) = last_of.get(errand.name())
                && gathered[last].take_along(errands, place)
            {
                continue;
            }
            last_of.insert(errand.name(), gathered.len());
        }
        // Few limits have many keys: what was found for the last of them is good for this.
        let algorithm = match gathered.last() {
            Some(last) if errands[last.first].algorithm == errand.algorithm => {
                last.algorithm.clone()
            }
            _ => errand.algorithm.on_server(),
        };
        gathered.push(Gathered { first: place, others: Vec::new(), algorithm, job: errand.job });
    }
    gathered
}

impl<A: Scripted> Errand<A> {
    fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether this is the same demand of the same key as `other`, and one that can be made for
    /// many if the algorithm allows.
    fn is_like(&self, other: &Self) -> bool {
        let (Job::Demand(own), Job::Demand(others)) = (&self.job, &other.job) else { return false };
        own == others
            && own.is_plain()
            && self.name == other.name
            && self.algorithm == other.algorithm
    }
}
