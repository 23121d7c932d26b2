use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::Request;

use super::{
    super::random::Random,
    Harness,
    trial::{Trial, answer},
};
use crate::{
    deferred::{
        Bounds, DeferredStore, DiskStore, Ending, Failure, Owner, RequestId, StoredRequest,
        Submission, Ticket,
    },
    queue::Priority,
    time::ManualClock,
};

const CALLS: u32 = 1_000;
const BOUNDS: Bounds = Bounds::DEFAULT.total(40, 30_000).per_owner(15, 12_000);

/// Everything that is told, in a form that can be compared.
async fn tell<S: DeferredStore>(store: &S, call: &Call, tickets: &mut Vec<Ticket>) -> String {
    match call {
        Call::Submit(submission) => match store.submit((**submission).clone()).await {
            Ok(submitted) => format!("{submitted:?}"),
            Err(error) => format!("{:?}", error.kind()),
        },
        Call::Take(most, lease) => {
            let taken = store.take(*most, *lease).await.expect("it can be told");
            tickets.extend(taken.jobs.iter().map(|job| job.ticket));
            let jobs = taken.jobs.iter().map(|job| {
                let (ticket, owner, request) = (job.ticket, job.owner, job.request.encode());
                format!("{ticket:?} {owner} {} {} {request:?}", job.attempt, job.label)
            });
            format!("{:?} {:?}", jobs.collect::<Vec<_>>(), taken.next)
        }
        Call::Renew(ticket, lease) => format!("{:?}", store.renew(ticket, *lease).await.ok()),
        Call::Settle(ticket, ending) => {
            format!("{:?}", store.settle(ticket, ending.clone()).await.ok())
        }
        Call::Result(owner, id) => {
            let told = store.result(owner, id).await.expect("it can be told");
            let told = told.map(|(status, kept)| (status, kept.map(|kept| kept.encode())));
            format!("{told:?}")
        }
        Call::Cancel(owner, id) => {
            format!("{:?}", store.cancel(owner, id).await.expect("it can be told"))
        }
        Call::Count => format!("{:?}", store.counts().await.expect("it can be told")),
    }
}

#[derive(Debug)]
enum Call {
    Submit(Box<Submission>),
    Take(usize, Duration),
    Renew(Ticket, Duration),
    Settle(Ticket, Ending),
    Result(Owner, RequestId),
    Cancel(Owner, RequestId),
    Count,
}

pub(super) async fn any_trace_is_that_of_the_store_in_memory<H: Harness>(trial: &mut Trial<'_, H>) {
    trial.bound(BOUNDS);
    let clock = ManualClock::new();
    clock.set(trial.now());
    let oracle = DiskStore::in_memory(BOUNDS, clock.clone()).expect("a thread");
    let mut random = Random::new(20_261_129);
    let mut ids: Vec<(Owner, RequestId)> = Vec::new();
    let mut tickets: Vec<Ticket> = Vec::new();
    for number in 0..CALLS {
        if random.below(3) == 0 {
            trial.pass(Duration::from_micros(random.below(4_000_000)));
            clock.set(trial.now());
        }
        let call = random_call(trial, &mut random, &ids, &tickets);
        if let Call::Submit(submission) = &call {
            ids.push((submission.owner, submission.id));
        }
        let expected = tell(&oracle, &call, &mut tickets).await;
        let told = tell(&trial.store, &call, &mut Vec::new()).await;
        assert_eq!(told, expected, "{}: call {number}, {call:?}", trial.name);
    }
}

fn random_call<H: Harness>(
    trial: &Trial<'_, H>,
    random: &mut Random,
    ids: &[(Owner, RequestId)],
    tickets: &[Ticket],
) -> Call {
    let seconds =
        |random: &mut Random, most: u64| Duration::from_micros(random.below(most * 1_000_000));
    let recent = |random: &mut Random, len: usize| {
        // Those of long ago are looked at too, but less.
        let back = random.below(20).min(random.below(len as u64 + 1)) as usize;
        len.checked_sub(back + 1)
    };
    match random.below(12) {
        0..=3 => {
            let owner = Owner::from_bytes([random.below(4) as u8 + 1; 16]);
            let mut submission = trial.submission(owner);
            let body = Bytes::from(vec![b'x'; random.below(600) as usize]);
            submission.request = StoredRequest::from_request(Request::new(body));
            submission.priority = Priority::ahead_by(seconds(random, 5));
            submission.weight = NonZeroU32::new(random.below(4) as u32 + 1).expect("a weight");
            submission.delay = seconds(random, 3) * u32::from(random.below(3) == 0);
            submission.expire_after = seconds(random, 60);
            submission.keep = seconds(random, 20);
            submission.max_attempts = NonZeroU32::new(random.below(3) as u32 + 1).expect("some");
            submission.dedup = (random.below(4) == 0).then(|| [random.below(6) as u8; 16]);
            submission.label = "label".repeat(random.below(3) as usize);
            Call::Submit(Box::new(submission))
        }
        4..=6 => Call::Take(random.below(4) as usize, seconds(random, 10)),
        7..=8 => match recent(random, tickets.len()) {
            None => Call::Count,
            Some(place) => {
                let after = seconds(random, 4);
                let ending = match random.below(6) {
                    0 => Ending::Refused { after },
                    1 => Ending::Retry { after },
                    2 => Ending::Failed(Failure::TooLarge, None),
                    3 => Ending::Failed(Failure::Refused, Some(answer("no"))),
                    _ => Ending::Done(answer("yes")),
                };
                Call::Settle(tickets[place], ending)
            }
        },
        9 => match recent(random, tickets.len()) {
            None => Call::Count,
            Some(place) => Call::Renew(tickets[place], seconds(random, 10)),
        },
        10 if random.below(3) == 0 => match recent(random, ids.len()) {
            None => Call::Count,
            Some(place) => Call::Cancel(ids[place].0, ids[place].1),
        },
        _ => match recent(random, ids.len()) {
            None => Call::Count,
            Some(place) => Call::Result(ids[place].0, ids[place].1),
        },
    }
}
