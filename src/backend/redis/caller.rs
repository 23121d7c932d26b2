//! Batches of decisions and corrections, on their way to the server and back.

use std::{
    collections::HashMap,
    ops::Range,
    slice,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use tokio::time::Instant as Deadline;

use super::{
    call::{self, Script},
    coalesce::{Carrier, Late, Step},
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
}

/// What became of an errand: the decision, if it was a demand.
pub(super) type Done = Result<Option<Decision>, BackendError>;

impl<A: Scripted, S: Source> Carrier for Caller<A, S> {
    type Job = Errand<A>;
    type Reply = Done;

    async fn carry(&self, slot: u16, mut errands: Vec<Step<Errand<A>>>) -> Vec<Done> {
        let late = self.late(&mut errands);
        let done = if errands.is_empty() {
            Vec::new()
        } else {
            self.call(slot, &errands, call::deadline(late.within)).await
        };
        late.among(done, || Err(call::too_late()))
    }

    fn deadline(&self) -> Deadline {
        call::deadline(self.timeout)
    }

    fn joins(&self, errand: &Errand<A>, ahead: &Errand<A>) -> bool {
        errand.is_like(ahead) && errand.algorithm.adds_up()
    }

    fn part_late(&self, errands: &mut Vec<Step<Errand<A>>>) -> Option<Vec<Option<Done>>> {
        self.late(errands).told(|| Err(call::too_late()))
    }
}

impl<A: Scripted, S: Source> Caller<A, S> {
    /// A correction leaves however late it is: somebody has what it is about.
    fn late(&self, errands: &mut Vec<Step<Errand<A>>>) -> Late {
        Late::part(errands, self.timeout, |it| matches!(it.job, Job::Settle(..)))
    }

    async fn call(&self, slot: u16, errands: &[Step<Errand<A>>], deadline: Deadline) -> Vec<Done> {
        let gathered = gather(errands);
        let heard = match self.ask(slot, errands, &gathered, deadline).await {
            Ok(Some(heard)) => Ok(heard),
            // The keys are apart while their slot is being moved, which may take long.
            Ok(None) => Ok(self.ask_key_by_key(slot, errands, &gathered, deadline).await),
            Err(error) => Err(error),
        };
        let wanted_by: usize = errands.iter().map(Step::wanted_by).sum();
        let done = match heard {
            Ok(heard) => {
                let mut done: Vec<Option<Done>> = (0..wanted_by).map(|_| None).collect();
                for (gathered, heard) in gathered.iter().zip(heard) {
                    self.tell(&errands[gathered.first].job, gathered, heard, &mut done);
                }
                let malformed = || Err(script::malformed());
                done.into_iter().map(|done| done.unwrap_or_else(malformed)).collect()
            }
            Err(error) => (0..wanted_by).map(|_| Err(error.clone())).collect(),
        };
        if let Some(refusals) = &self.refusals {
            // Something has come back, or may have: what was refused before, in this call too, need
            // not be refused now.
            let corrected = errands.iter().map(|errand| &errand.job);
            let corrected = corrected.filter(|errand| matches!(errand.job, Job::Settle(..)));
            corrected.for_each(|errand| refusals.forget(&errand.name));
        }
        done
    }

    /// Asks for some jobs in one call. `None` if there are several, and their keys are apart.
    async fn ask(
        &self,
        slot: u16,
        errands: &[Step<Errand<A>>],
        gathered: &[Gathered<A>],
        deadline: Deadline,
    ) -> Result<Option<Vec<Heard<A>>>, BackendError> {
        let mut keys: Vec<&[u8]> =
            gathered.iter().map(|job| &*errands[job.first].job.name).collect();
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
            let name = &errands[*first].job.name;
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
        errands: &[Step<Errand<A>>],
        gathered: &[Gathered<A>],
        deadline: Deadline,
    ) -> Vec<Heard<A>> {
        let mut keys: Vec<Vec<usize>> = Vec::new();
        let mut place_of = HashMap::new();
        for (place, job) in gathered.iter().enumerate() {
            let key = *place_of.entry(&*errands[job.first].job.name).or_insert(keys.len());
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
        errands: &[Step<Errand<A>>],
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

    /// Tells each of those who wanted the same as `errand` does what became of it.
    fn tell(
        &self,
        errand: &Errand<A>,
        gathered: &Gathered<A>,
        heard: Heard<A>,
        done: &mut [Option<Done>],
    ) {
        let Errand { name, algorithm, job } = errand;
        let Heard { verdict, asked } = heard;
        let (mut verdict, demand) = match (verdict, job) {
            (Ok(Some(verdict)), Job::Demand(demand)) => (verdict, demand),
            (Ok(_), _) => return gathered.places().for_each(|place| done[place] = Some(Ok(None))),
            (Err(error), _) => {
                return gathered.places().for_each(|place| done[place] = Some(Err(error.clone())));
            }
        };
        let mut refused = false;
        for place in gathered.places() {
            let decision = verdict.next(demand);
            refused = decision.as_ref().is_ok_and(|decision| !decision.is_allowed());
            done[place] = Some(decision.map(Some));
        }
        if refused {
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
    /// The places of those who want the first, among all who want something.
    want_first: Range<usize>,
    want_others: Vec<Range<usize>>,
    /// In the form of the server.
    algorithm: A,
    job: Job,
}

impl<A: Scripted> Gathered<A> {
    fn of(first: usize, wanted_by: Range<usize>, algorithm: A, job: Job) -> Self {
        let others = wanted_by.len().saturating_sub(1);
        let mut gathered =
            Self { first, want_first: wanted_by, want_others: Vec::new(), algorithm, job };
        gathered.ask_for_more(others);
        gathered
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        self.want_first.clone().chain(self.want_others.iter().cloned().flatten())
    }

    /// Has an errand travel along, if it wants the same as the first.
    fn take_along(
        &mut self,
        errands: &[Step<Errand<A>>],
        place: usize,
        wanted_by: &Range<usize>,
    ) -> bool {
        let is_one =
            errands[place].job.is_like(&errands[self.first].job) && self.algorithm.adds_up();
        if is_one {
            self.want_others.push(wanted_by.clone());
            self.ask_for_more(wanted_by.len());
        }
        is_one
    }

    fn ask_for_more(&mut self, others: usize) {
        if let Job::Demand(many) = &mut self.job
            && others > 0
        {
            many.most += others as u64;
            many.mode = DemandMode::TakeUpTo;
        }
    }
}

/// Puts together what wants the same of one key: a demand for many costs the server no more than
/// one. The order of what concerns a key stays as it is.
fn gather<A: Scripted>(errands: &[Step<Errand<A>>]) -> Vec<Gathered<A>> {
    let mut gathered: Vec<Gathered<A>> = Vec::new();
    // Where the last of each key is; empty until there are several keys.
    let mut last_of: HashMap<&[u8], usize> = HashMap::new();
    let mut before = 0;
    for (place, step) in errands.iter().enumerate() {
        let wanted_by = before..before + step.wanted_by();
        before = wanted_by.end;
        let errand = &step.job;
        // Mostly all are of one key, or all of different ones.
        if let Some(last) = gathered.last_mut() {
            if last.take_along(errands, place, &wanted_by) {
                continue;
            }
            if last_of.is_empty() {
                last_of = HashMap::with_capacity(errands.len());
                let gathered = gathered.iter().enumerate();
                last_of.extend(gathered.map(|(at, job)| (&*errands[job.first].job.name, at)));
            }
            if let Some(&last) = last_of.get(&*errand.name)
                && gathered[last].take_along(errands, place, &wanted_by)
            {
                continue;
            }
            last_of.insert(&errand.name, gathered.len());
        }
        // Few limits have many keys: what was found for the last of them is good for this.
        let algorithm = match gathered.last() {
            Some(last) if errands[last.first].job.algorithm == errand.algorithm => {
                last.algorithm.clone()
            }
            _ => errand.algorithm.on_server(),
        };
        if algorithm.adds_up() {
            gathered.push(Gathered::of(place, wanted_by, algorithm, errand.job));
        } else {
            // They joined by the limit itself, whose form for the server is rounded.
            let alone = |want| Gathered::of(place, want..want + 1, algorithm.clone(), errand.job);
            gathered.extend(wanted_by.map(alone));
        }
    }
    gathered
}

impl<A: Scripted> Errand<A> {
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
