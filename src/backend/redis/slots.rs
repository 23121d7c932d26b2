//! Slots that instances share: who holds them and who waits for them stands on the server.
//!
//! One script does what is asked, for a batch of jobs at a time. Each holder and each waiter has a
//! number by which it is known, so whatever is asked twice happens once.

use std::{
    collections::{HashSet, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use redis::Value;
use tokio::{sync::Notify, time::Instant};

use super::{
    call::{self, Script},
    coalesce::{Carrier, Coalescer, Late, Step},
    lost,
    name::{self, Names},
    script::{foreign, malformed},
    source::Source,
};
use crate::{error::BackendError, key::Key, name::PolicyName, sync::Mutex};

/// What is asked about the slots of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SlotJob {
    /// Slots at once, or none.
    Try,
    /// Slots, or a place in line.
    Join,
    /// That slots, or a place, be kept for another while.
    Keep,
    /// That slots, or a place, be given back.
    Free,
    /// How many are in use.
    Look,
    /// Slots that were lent and are forgotten, if there is room for them: whoever waits came later.
    Reenter,
}

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotAsk {
    pub(crate) job: SlotJob,
    pub(crate) limits: SlotLimits,
    pub(crate) weight: u64,
    /// For how long it is asked.
    pub(crate) lease: Duration,
    /// The number of who asks, in this instance.
    pub(crate) number: u64,
}

/// How many slots there are, and how many may wait for them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SlotLimits {
    pub(crate) per_key: u64,
    /// Those of all keys together. `None`: there is no such limit, and keys have nothing to do with
    /// each other.
    pub(crate) total: Option<u64>,
    pub(crate) waiting_per_key: u64,
    /// Where there is a total.
    pub(crate) total_waiting: u64,
}

/// How who asked stands afterwards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SlotPlace {
    Held,
    Waiting,
    /// There are not so many free at its key, or others wait for them.
    Refused,
    /// There are at its key, but not of all together.
    RefusedByAll,
    /// Too many wait for its key.
    Full,
    /// Too many wait for all keys together.
    FullOfAll,
    /// It has neither slots nor a place.
    Gone,
}

/// What the server says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotStanding {
    pub(crate) place: SlotPlace,
    /// The slots of the key.
    pub(crate) in_use: u64,
    pub(crate) waiting: u64,
    /// Those of all keys, where they have a total; else again those of the key.
    pub(crate) total_in_use: u64,
    pub(crate) total_waiting: u64,
}

impl SlotStanding {
    /// As many bytes as the server says it in.
    const BYTES: usize = 40;
}

/// The answer of a server.
pub(crate) type SlotAnswer = BoxFuture<'static, Result<SlotStanding, BackendError>>;

/// A server that keeps slots, whichever way it is reached. A call is a box more than it need be,
/// where a round trip costs a hundred of them.
pub(crate) trait SlotServer: Send + Sync + 'static {
    /// Asks about the slots of `key`. Nothing is sent before the first poll.
    fn ask(&self, key: &Key, ask: SlotAsk) -> SlotAnswer;

    /// The numbers of those in this instance whose turns have come, as they are told. `None` where
    /// nobody tells.
    fn listen(&self) -> BoxFuture<'static, Option<BoxStream<'static, Vec<u64>>>>;

    /// Those of them that are known by the way.
    fn turns(&self) -> &Turns;
}

/// Numbers of those whose turns have come.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    numbers: Mutex<HashSet<u64>>,
    come: Notify,
}

impl Turns {
    pub(crate) fn add(&self, numbers: impl IntoIterator<Item = u64>) {
        self.numbers.lock().extend(numbers);
        self.come.notify_one();
    }

    pub(crate) fn take(&self) -> HashSet<u64> {
        std::mem::take(&mut *self.numbers.lock())
    }

    /// Something was added, or there is another reason to look.
    pub(crate) async fn come(&self) {
        self.come.notified().await;
    }

    pub(crate) fn rouse(&self) {
        self.come.notify_one();
    }
}

/// How slots are named, and what a call may take.
pub(crate) struct SlotSettings {
    pub(crate) prefix: PolicyName,
    pub(crate) name: PolicyName,
    pub(crate) hash_key: Option<Arc<[u8]>>,
    pub(crate) timeout: Duration,
}

/// Slots on the server that `source` leads to.
pub(crate) fn slot_server<S: Source>(source: S, settings: &SlotSettings) -> Arc<dyn SlotServer> {
    let SlotSettings { prefix, name, hash_key, timeout } = settings;
    let instance = RandomState::new().hash_one(0_u8).to_le_bytes();
    let caller = SlotCaller {
        source,
        script: Script::new(include_str!("slots/slots.lua")),
        names: Names::new(prefix, name, hash_key.as_deref(), None),
        timeout: (*timeout).min(call::LONGEST),
        instance,
        channels: format!("{prefix}:{name}:turns:"),
        turns: Turns::default(),
    };
    Arc::new(Slots { coalescer: Coalescer::new(caller, BATCH, IN_FLIGHT) })
}

/// The most jobs in a call.
const BATCH: usize = 256;
/// The most calls of a lane under way: what is asked of one key stays in order on one connection.
const IN_FLIGHT: usize = 4;

struct Slots<S: Source> {
    coalescer: Coalescer<SlotCaller<S>>,
}

struct SlotCaller<S> {
    source: S,
    script: Script,
    names: Names,
    timeout: Duration,
    /// Drawn at random: no two instances have one.
    instance: [u8; 8],
    /// How the names of the channels begin on which instances are told of turns.
    channels: String,
    turns: Turns,
}

struct SlotErrand {
    name: Vec<u8>,
    /// Whose slots they are, where all keys are under one name.
    key: Option<[u8; 16]>,
    ask: SlotAsk,
}

impl<S: Source> SlotServer for Slots<S> {
    fn ask(&self, key: &Key, ask: SlotAsk) -> SlotAnswer {
        let SlotCaller { names, .. } = self.coalescer.carrier();
        let (name, key) = match ask.limits.total {
            None => (names.of(key), None),
            Some(_) => (names.of_all(), Some(names.digest(key))),
        };
        let slot = if S::HAS_SLOTS { name::slot(&name) } else { 0 };
        let receipt = self.coalescer.submit(slot, SlotErrand { name, key, ask });
        async move { receipt.await.unwrap_or_else(|| Err(lost())) }.boxed()
    }

    fn listen(&self) -> BoxFuture<'static, Option<BoxStream<'static, Vec<u64>>>> {
        let caller = self.coalescer.carrier();
        let source = caller.source.clone();
        let channel = caller.channel();
        async move {
            let messages = source.listen(channel).await.ok()??;
            let turns = messages.map(|message| numbers(message.get_payload_bytes()).collect());
            Some(turns.boxed())
        }
        .boxed()
    }

    fn turns(&self) -> &Turns {
        &self.coalescer.carrier().turns
    }
}

impl<S: Source> Carrier for SlotCaller<S> {
    type Job = SlotErrand;
    type Reply = Result<SlotStanding, BackendError>;

    async fn carry(&self, slot: u16, mut errands: Vec<Step<SlotErrand>>) -> Vec<Self::Reply> {
        let late = Late::part(&mut errands, self.timeout, SlotErrand::is_patient);
        let errands: Vec<SlotErrand> = errands.into_iter().map(|step| step.job).collect();
        if errands.is_empty() {
            return late.among(Vec::new(), || Err(call::too_late()));
        }
        let standings = match self.call(slot, &errands, late.within).await {
            Ok(standings) => standings,
            Err(error) => errands.iter().map(|_| Err(error.clone())).collect(),
        };
        late.among(standings, || Err(call::too_late()))
    }

    fn deadline(&self) -> Instant {
        call::deadline(self.timeout)
    }

    fn part_late(&self, errands: &mut Vec<Step<SlotErrand>>) -> Option<Vec<Option<Self::Reply>>> {
        let late = Late::part(errands, self.timeout, SlotErrand::is_patient);
        late.told(|| Err(call::too_late()))
    }
}

impl<S: Source> SlotCaller<S> {
    async fn call(
        &self,
        slot: u16,
        errands: &[SlotErrand],
        within: Duration,
    ) -> Result<Vec<Result<SlotStanding, BackendError>>, BackendError> {
        let keys: Vec<&[u8]> = errands.iter().map(|errand| errand.name.as_slice()).collect();
        let mut arguments = vec![self.instance.to_vec(), self.channels.clone().into_bytes()];
        arguments.extend(errands.iter().map(|errand| errand.argument(self.instance)));
        let (source, script) = (&self.source, &self.script);
        let reply = call::call(source, script, slot, &keys, &arguments, within).await?;
        let Value::BulkString(reply) = reply else { return Err(malformed()) };
        let mut standings = Vec::with_capacity(errands.len());
        let mut rest = reply.as_slice();
        for errand in errands {
            let (standing, others) =
                rest.split_at_checked(SlotStanding::BYTES).ok_or_else(malformed)?;
            standings.push(SlotStanding::read(standing, &errand.name));
            rest = others;
        }
        if !rest.is_empty() {
            self.turns.add(numbers(rest));
        }
        Ok(standings)
    }

    /// The name of this instance's channel.
    fn channel(&self) -> String {
        let hex = self.instance.iter().map(|byte| format!("{byte:02x}"));
        self.channels.clone() + &hex.collect::<String>()
    }
}

impl SlotErrand {
    /// What is kept or given back leaves however late it is: somebody has it.
    const fn is_patient(&self) -> bool {
        match self.ask.job {
            SlotJob::Keep | SlotJob::Free | SlotJob::Reenter => true,
            SlotJob::Try | SlotJob::Join | SlotJob::Look => false,
        }
    }

    fn argument(&self, instance: [u8; 8]) -> Vec<u8> {
        let SlotAsk { job, limits, weight, lease, number } = self.ask;
        let SlotLimits { per_key, total, waiting_per_key, total_waiting } = limits;
        let op = match job {
            SlotJob::Try => 0,
            SlotJob::Join => 1,
            SlotJob::Keep => 2,
            SlotJob::Free => 3,
            SlotJob::Look => 4,
            SlotJob::Reenter => 5,
        };
        let lease = u64::try_from(lease.as_micros()).unwrap_or(MOST);
        // Without a total, what is one key's is all that there is under its name, and its own line
        // the only one.
        let total_waiting = total.map_or(MOST, |_| total_waiting);
        let total = total.unwrap_or(per_key);
        let numbers = [op, per_key, total, weight, lease, waiting_per_key, total_waiting];
        let numbers = numbers.into_iter().flat_map(|it| (it.min(MOST) as f64).to_le_bytes());
        let who = instance.into_iter().chain(number.to_le_bytes());
        numbers.chain(who).chain(self.key.into_iter().flatten()).collect()
    }
}

impl SlotStanding {
    /// Reads five doubles, about the key of a name.
    fn read(bytes: &[u8], name: &[u8]) -> Result<Self, BackendError> {
        let mut doubles = bytes
            .chunks_exact(8)
            .map(|chunk| f64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes are")));
        let mut next = || doubles.next().ok_or_else(malformed);
        let place = next()?;
        let place = match place {
            1.0 => SlotPlace::Held,
            2.0 => SlotPlace::Waiting,
            3.0 => SlotPlace::Refused,
            4.0 => SlotPlace::Full,
            5.0 => SlotPlace::Gone,
            6.0 => SlotPlace::RefusedByAll,
            7.0 => SlotPlace::FullOfAll,
            -2.0 => return Err(foreign(name)),
            _ => return Err(malformed()),
        };
        // A cast ends at the ends of the type.
        let mut count = || next().map(|count| count as u64);
        let (in_use, waiting, total_in_use, total_waiting) =
            (count()?, count()?, count()?, count()?);
        Ok(Self { place, in_use, waiting, total_in_use, total_waiting })
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes are")))
}

/// The largest whole number up to which all are doubles.
const MOST: u64 = (1 << 53) - 1;

impl<S: Source> fmt::Debug for Slots<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("names", &self.coalescer.carrier().names).finish()
    }
}
