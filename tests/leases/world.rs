//! The simulated world: instances with clocks of their own, a network, a server, and a true time
//! that none of them knows.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use tower_quota::{
    BackendError, BackendErrorKind, Decision, Demand, Quota,
    algorithm::{Algorithm, MeterState, TokenBucket},
    backend::leased::{Lease, Terms},
    time::Timestamp,
};

use crate::{
    oracle::{Ideal, Oracle},
    random::Random,
};

pub(crate) const MILLI: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// What a world is like. The numbers of faults are "one in so many", zero for never.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) quota: Quota,
    pub(crate) burst: u64,
    pub(crate) hold: Duration,
    pub(crate) jitter: Duration,
    pub(crate) largest_cost: u64,
    pub(crate) instances: usize,
    /// Offered, in parts of the rate.
    pub(crate) load: f64,
    pub(crate) seconds: u64,
    /// Nanoseconds after which the load changes between a tenth and eight times; zero for never.
    pub(crate) surge: u64,
    /// Nanoseconds of one way, from and to.
    pub(crate) way: (u64, u64),
    /// Messages that take up to half a second.
    pub(crate) slow_one_in: u64,
    pub(crate) lost_one_in: u64,
    pub(crate) crashes_per_second: f64,
    pub(crate) pauses_per_second: f64,
    /// How far an instance's clock may be off, in parts of a million.
    pub(crate) drift: u64,
    /// When the server's clock jumps, and how far, in nanoseconds.
    pub(crate) jumps: Vec<(u64, i64)>,
    /// When another server takes over, and how old its states are.
    pub(crate) failovers: Vec<(u64, u64)>,
    /// The server's clock shows multiples of this.
    pub(crate) server_tick: u64,
    /// Whether those who are refused come back once, when they are told to.
    pub(crate) come_back: bool,
}

impl Setting {
    /// A quiet world of twenty instances and a round trip of a millisecond.
    pub(crate) fn quiet(per_second: u64, burst: u64, hold: u64, load: f64) -> Self {
        Self {
            quota: Quota::per_second(per_second),
            burst,
            hold: Duration::from_millis(hold),
            jitter: Duration::ZERO,
            largest_cost: 1,
            instances: 20,
            load,
            seconds: 20,
            surge: 0,
            way: (MILLI / 2, MILLI / 2),
            slow_one_in: 0,
            lost_one_in: 0,
            crashes_per_second: 0.0,
            pauses_per_second: 0.0,
            drift: 0,
            jumps: Vec::new(),
            failovers: Vec::new(),
            server_tick: 1_000,
            come_back: false,
        }
    }
}

/// What happened in a world.
pub(crate) struct Outcome {
    pub(crate) oracle: Oracle,
    pub(crate) quota: Quota,
    pub(crate) terms: Terms,
    pub(crate) offered: u64,
    pub(crate) offered_units: u64,
    /// What one bucket in one place would have admitted.
    pub(crate) ideal: u64,
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    /// What was admitted by each instance.
    pub(crate) by_instance: Vec<u64>,
    /// What the server has granted, and whose answer was lost or came too late: nobody can spend
    /// it, and the server cannot grant it again.
    pub(crate) gone: Oracle,
    /// Refusals whose `retry_after` was beyond the time in which the bucket fills.
    pub(crate) absurd_waits: u64,
    /// Tickets that were told out of turn.
    pub(crate) out_of_turn: u64,
}

pub(crate) fn run(setting: &Setting, seed: u64) -> Outcome {
    World::new(setting.clone(), seed).run()
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    Arrive { instance: usize },
    Return { instance: usize, cost: u64 },
    AtServer { instance: usize, life: u32, call: u64 },
    Answered { instance: usize, life: u32, call: u64 },
    TimesOut { instance: usize, life: u32, call: u64 },
    Crash,
    Pause,
    Jump { by: i64 },
    Failover { age: u64 },
}

struct World {
    setting: Setting,
    terms: Terms,
    random: Random,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    server: Server,
    instances: Vec<Instance>,
    /// Calls and answers on their way.
    calls: Vec<(Demand, Option<Decision>)>,
    ideal: Ideal,
    outcome: Outcome,
}

struct Server {
    state: MeterState,
    /// What its clock is ahead of the true time.
    offset: i64,
    /// What replicas may still have.
    history: VecDeque<(u64, MeterState)>,
}

struct Instance {
    lease: Lease,
    life: u32,
    per_second: f64,
    /// Its clock runs so many parts of a million too fast.
    drift: i64,
    offset: u64,
    paused_until: u64,
    waiting: VecDeque<(u64, Request)>,
    /// The lease's call, and its place among the world's.
    call: Option<(u64, usize)>,
}

#[derive(Clone, Copy)]
struct Request {
    cost: u64,
    has_returned: bool,
}

impl Instance {
    fn clock(&self, now: u64) -> Timestamp {
        let drift = i128::from(now) * i128::from(self.drift) / 1_000_000;
        Timestamp::from_nanos((i128::from(self.offset) + i128::from(now) + drift) as u64)
    }
}

impl Server {
    fn clock(&self, now: u64, tick: u64) -> Timestamp {
        let nanos = ((now + 1_000_000 * SECOND) as i64 + self.offset) as u64;
        Timestamp::from_nanos(nanos / tick * tick)
    }
}

impl World {
    fn new(setting: Setting, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let limit = TokenBucket::new(setting.quota).burst(setting.burst);
        let terms = Terms::new(&limit, setting.hold, setting.jitter, setting.largest_cost);
        assert!(terms.is_leased(), "the bucket is too small to be leased: {setting:?}");
        let per_second =
            setting.quota.limit() as f64 / setting.quota.period().as_secs_f64() * setting.load;
        // Zipf: the second instance has half of the first one's load.
        let weights: f64 = (1..=setting.instances).map(|rank| 1.0 / rank as f64).sum();
        let mean_cost = (1 + setting.largest_cost) as f64 / 2.0;
        let instances = (0..setting.instances)
            .map(|rank| {
                let offset = random.between(0, 1_000) * SECOND;
                let drift = random.between(0, 2 * setting.drift) as i64 - setting.drift as i64;
                Instance {
                    lease: Lease::new(terms, Timestamp::from_nanos(offset)),
                    life: 0,
                    per_second: per_second / mean_cost / (rank + 1) as f64 / weights,
                    drift,
                    offset,
                    paused_until: 0,
                    waiting: VecDeque::new(),
                    call: None,
                }
            })
            .collect();
        let server = Server {
            state: terms.drawn_from().initial(Timestamp::from_secs(1_000_000)),
            offset: 0,
            history: VecDeque::new(),
        };
        let outcome = Outcome {
            oracle: Oracle::default(),
            quota: setting.quota,
            terms,
            offered: 0,
            offered_units: 0,
            ideal: 0,
            calls: 0,
            failed: 0,
            by_instance: vec![0; setting.instances],
            gone: Oracle::default(),
            absurd_waits: 0,
            out_of_turn: 0,
        };
        let ideal = Ideal::new(setting.quota, setting.burst);
        let (events, calls) = (BinaryHeap::new(), Vec::new());
        let (now, count) = (0, 0);
        Self {
            setting,
            terms,
            random,
            now,
            events,
            count,
            server,
            instances,
            calls,
            ideal,
            outcome,
        }
    }

    fn run(mut self) -> Outcome {
        for instance in 0..self.instances.len() {
            let first = self.random.wait(self.instances[instance].per_second);
            self.at(first, Event::Arrive { instance });
        }
        for (at, by) in self.setting.jumps.clone() {
            self.at(at, Event::Jump { by });
        }
        for (at, age) in self.setting.failovers.clone() {
            self.at(at, Event::Failover { age });
        }
        self.repeat(self.setting.crashes_per_second, Event::Crash);
        self.repeat(self.setting.pauses_per_second, Event::Pause);
        let end = self.setting.seconds * SECOND;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.happen(event);
        }
        self.outcome.ideal = self.ideal.admitted;
        self.outcome
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, event)));
    }

    fn repeat(&mut self, per_second: f64, event: Event) {
        if per_second > 0.0 {
            let wait = self.random.wait(per_second);
            self.at(self.now + wait, event);
        }
    }

    fn happen(&mut self, event: Event) {
        if let Event::Arrive { instance }
        | Event::Return { instance, .. }
        | Event::Answered { instance, .. }
        | Event::TimesOut { instance, .. } = event
        {
            // Whoever is paused sees it afterwards.
            let paused_until = self.instances[instance].paused_until;
            if paused_until > self.now {
                return self.at(paused_until, event);
            }
        }
        match event {
            Event::Arrive { instance } => self.arrive(instance),
            Event::Return { instance, cost } => {
                self.ask(instance, Request { cost, has_returned: true });
            }
            Event::AtServer { instance, life, call } => self.serve(instance, life, call),
            Event::Answered { instance, life, call } => {
                let decision = self.calls[call as usize].1.expect("the server has answered");
                if !self.is_out(instance, life, call) {
                    self.never_heard(call);
                }
                self.answer(instance, life, call, Ok(decision));
            }
            Event::TimesOut { instance, life, call } => {
                let error = BackendError::new(BackendErrorKind::TimedOut);
                self.answer(instance, life, call, Err(error));
            }
            Event::Crash => {
                let instance = self.random.between(0, self.instances.len() as u64 - 1) as usize;
                let clock = self.instances[instance].clock(self.now);
                let crashed = &mut self.instances[instance];
                crashed.lease = Lease::new(self.terms, clock);
                crashed.life += 1;
                crashed.waiting.clear();
                crashed.call = None;
                self.repeat(self.setting.crashes_per_second, Event::Crash);
            }
            Event::Pause => {
                let instance = self.random.between(0, self.instances.len() as u64 - 1) as usize;
                let hold = self.setting.hold.as_nanos() as u64;
                self.instances[instance].paused_until =
                    self.now + self.random.between(hold / 4, hold * 2);
                self.repeat(self.setting.pauses_per_second, Event::Pause);
            }
            Event::Jump { by } => self.server.offset += by,
            Event::Failover { age } => {
                let since = self.now.saturating_sub(age);
                let history = &self.server.history;
                let kept = history.iter().rev().find(|(at, _)| *at <= since);
                let fresh = || self.terms.drawn_from().initial(Timestamp::from_secs(1_000_000));
                self.server.state = kept.map_or_else(fresh, |(_, state)| *state);
            }
        }
    }

    fn arrive(&mut self, instance: usize) {
        let cost = self.random.between(1, self.setting.largest_cost);
        self.outcome.offered += 1;
        self.outcome.offered_units += cost;
        self.ideal.demand(self.now, cost);
        self.ask(instance, Request { cost, has_returned: false });
        let surge = match self.now.checked_div(self.setting.surge) {
            None => 1.0,
            Some(phase) if phase % 2 == 0 => 0.1,
            Some(_) => 8.0,
        };
        let next = self.random.wait(self.instances[instance].per_second * surge);
        self.at(self.now + next, Event::Arrive { instance });
    }

    fn ask(&mut self, instance: usize, request: Request) {
        let clock = self.instances[instance].clock(self.now);
        match self.instances[instance].lease.ask(clock, request.cost) {
            Ok(decision) => self.decided(instance, request, &decision),
            Err(ticket) => self.instances[instance].waiting.push_back((ticket, request)),
        }
        self.call(instance);
    }

    fn decided(&mut self, instance: usize, request: Request, decision: &Decision) {
        let Request { cost, has_returned } = request;
        if decision.is_allowed() {
            let jitter = self.setting.jitter.as_nanos() as u64;
            let effect = self.now + self.random.between(0, jitter);
            self.outcome.oracle.admit(effect, cost);
            self.outcome.by_instance[instance] += cost;
        } else {
            let retry = decision.retry_after().and_then(|retry| retry.duration());
            let fills = self
                .setting
                .quota
                .period()
                .mul_f64(self.setting.burst as f64 / self.setting.quota.limit() as f64)
                + self.setting.hold * 2;
            self.outcome.absurd_waits += u64::from(retry.is_none_or(|retry| retry > fills));
            if let Some(retry) = retry.filter(|_| self.setting.come_back && !has_returned) {
                self.at(self.now + retry.as_nanos() as u64, Event::Return { instance, cost });
            }
        }
    }

    fn call(&mut self, instance: usize) {
        let clock = self.instances[instance].clock(self.now);
        let Some(call) = self.instances[instance].lease.next_call(clock) else { return };
        self.outcome.calls += 1;
        let place = self.calls.len();
        self.calls.push((call.demand, None));
        let life = self.instances[instance].life;
        self.instances[instance].call = Some((call.id, place));
        if !self.random.one_in(self.setting.lost_one_in) {
            let at = self.now + self.way();
            self.at(at, Event::AtServer { instance, life, call: place as u64 });
        }
        let time_out = self.now + 100 * MILLI;
        self.at(time_out, Event::TimesOut { instance, life, call: place as u64 });
    }

    fn serve(&mut self, instance: usize, life: u32, call: u64) {
        let demand = self.calls[call as usize].0;
        let clock = self.server.clock(self.now, self.setting.server_tick);
        let decision = self.terms.drawn_from().answer(&mut self.server.state, clock, &demand);
        if !self.setting.failovers.is_empty() {
            self.server.history.push_back((self.now, self.server.state));
            while self.server.history.front().is_some_and(|&(at, _)| at + 5 * SECOND < self.now) {
                self.server.history.pop_front();
            }
        }
        self.calls[call as usize].1 = Some(decision);
        if self.random.one_in(self.setting.lost_one_in) {
            self.never_heard(call);
        } else {
            let at = self.now + self.way();
            self.at(at, Event::Answered { instance, life, call });
        }
    }

    fn answer(
        &mut self,
        instance: usize,
        life: u32,
        call: u64,
        answer: Result<Decision, BackendError>,
    ) {
        if !self.is_out(instance, life, call) {
            return;
        }
        let clock = self.instances[instance].clock(self.now);
        let Some((id, _)) = self.instances[instance].call else { return };
        self.instances[instance].call = None;
        let mut decided = Vec::new();
        self.instances[instance].lease.answer(id, clock, answer, &mut decided);
        for (ticket, decision) in decided {
            let first = self.instances[instance].waiting.pop_front();
            let Some((_, request)) = first.filter(|first| first.0 == ticket) else {
                self.outcome.out_of_turn += 1;
                continue;
            };
            match decision {
                Ok(decision) => self.decided(instance, request, &decision),
                Err(_) => self.outcome.failed += 1,
            }
        }
        self.call(instance);
    }

    /// Whether somebody waits for the answer to a call.
    fn is_out(&self, instance: usize, life: u32, call: u64) -> bool {
        let Instance { life: now, call: out, .. } = &self.instances[instance];
        *now == life && out.is_some_and(|(_, place)| place == call as usize)
    }

    fn never_heard(&mut self, call: u64) {
        if let Some(charge) = self.calls[call as usize].1.and_then(|decision| decision.charge()) {
            self.outcome.gone.admit(self.now, charge.cost.units());
        }
    }

    fn way(&mut self) -> u64 {
        if self.random.one_in(self.setting.slow_one_in) {
            return self.random.between(0, SECOND / 2);
        }
        let (least, most) = self.setting.way;
        self.random.between(least, most)
    }
}
