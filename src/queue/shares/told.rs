//! What instances tell each other of what flows have had.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Behind, Shares, State, Tag};
use crate::key::Key;

/// What an instance tells.
#[derive(Debug)]
pub(crate) struct Report {
    /// Who tells it.
    pub(crate) own: u64,
    pub(crate) frame: u64,
    pub(crate) time: Tag,
    /// The first of those who wait here: where it starts, and how much it asks for.
    pub(crate) behind: Option<(Tag, u64)>,
    /// What flows had, and those of which it is asked what they had elsewhere.
    pub(crate) flows: Vec<Part>,
}

/// What one flow had.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) flow: Key,
    /// Where that starts.
    pub(crate) since: Tag,
    pub(crate) length: Tag,
}

/// What all have told together.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) frame: u64,
    pub(crate) time: Tag,
    /// The first of those who wait at other instances.
    pub(crate) behind: Option<(Tag, u64)>,
    /// Where the flows of the report start, in its order.
    pub(crate) starts: Vec<Option<Tag>>,
}

impl Shares {
    /// Those that call `tell` when there is something to report.
    pub(crate) fn telling(tell: impl Fn() + Send + Sync + 'static) -> Self {
        let shares = Self::default();
        shares.0.lock().tell = Some(Arc::new(tell));
        shares
    }

    /// What there is to tell and to ask; nothing while nobody waits here and nobody had anything.
    pub(crate) fn report(&self) -> Option<Report> {
        let mut state = self.0.lock();
        let mut behind: Option<(Tag, u64)> = None;
        let mut flows = Vec::new();
        for (key, flow) in &mut state.flows {
            if flow.waiting > 0 && behind.is_none_or(|(start, _)| flow.start < start) {
                behind = Some((flow.start, flow.size));
            }
            if flow.waiting > 0 || flow.unsent > 0 {
                let length = std::mem::take(&mut flow.unsent);
                flows.push(Part { flow: key.clone(), since: flow.since, length });
            }
        }
        let was_waiting = std::mem::replace(&mut state.is_told_to_wait, behind.is_some());
        if flows.is_empty() && !was_waiting {
            return None;
        }
        let State { own, frame, time, .. } = *state;
        Some(Report { own, frame, time, behind, flows })
    }

    /// What was told was not heard: it is told again.
    pub(crate) fn unheard(&self, report: Report) {
        let mut state = self.0.lock();
        state.is_told_to_wait = true;
        for Part { flow, since, length } in report.flows {
            if length > 0
                && let Some(known) = state.flows.get_mut(&flow)
            {
                known.unsent = known.unsent.saturating_add(length);
                known.since = since;
            }
        }
    }

    /// Takes over what others had.
    pub(crate) fn heard(&self, report: &Report, heard: &Heard, now: Instant) {
        let mut state = self.0.lock();
        state.version = state.version.wrapping_add(1);
        if state.frame == heard.frame {
            state.time = state.time.max(heard.time);
        } else {
            // Others have begun to count elsewhere: what stands between flows is the same there.
            let (from, to) = (state.time, heard.time);
            let shift = |tag: Tag| {
                if tag >= from {
                    to.saturating_add(tag - from)
                } else {
                    to.saturating_sub(from - tag)
                }
            };
            for flow in state.flows.values_mut() {
                flow.start = shift(flow.start);
                flow.since = shift(flow.since);
            }
            (state.frame, state.time, state.round) = (heard.frame, to, shift(state.round));
        }
        let until = now + BELIEVED;
        state.elsewhere = heard.behind.map(|(start, size)| Behind { start, size, until });
        for (part, start) in report.flows.iter().zip(&heard.starts) {
            if let (Some(start), Some(known)) = (start, state.flows.get_mut(&part.flow)) {
                // Never earlier than it is here: who was away has no claim to what others had.
                known.start = known.start.max(start.saturating_add(known.unsent));
                known.since = known.start.saturating_sub(known.unsent);
            }
        }
        state.forget();
    }

    /// Whether somebody waits, here or elsewhere.
    pub(crate) fn is_contended(&self, now: Instant) -> bool {
        let state = self.0.lock();
        state.is_told_to_wait || state.elsewhere.is_some_and(|behind| now < behind.until)
    }
}

/// How long one is believed to wait who did: several reports long.
const BELIEVED: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::queue::shares::PARTS;

    /// What a server does with reports.
    #[derive(Default)]
    struct Server {
        frame: Option<u64>,
        time: Tag,
        starts: std::collections::BTreeMap<Vec<u8>, Tag>,
        behind: std::collections::BTreeMap<u64, (Tag, u64)>,
    }

    impl Server {
        fn exchange(&mut self, shares: &Shares) {
            let Some(report) = shares.report() else { return };
            let frame = *self.frame.get_or_insert(report.frame);
            let is_ours = frame == report.frame;
            if is_ours {
                self.time = self.time.max(report.time);
            }
            let mut starts = Vec::new();
            for part in &report.flows {
                let known = self.starts.get(part.flow.as_bytes()).copied();
                let since = if is_ours { part.since } else { self.time };
                let start = match part.length {
                    0 => known,
                    length => Some(known.unwrap_or(0).max(since) + length),
                };
                if let Some(start) = start {
                    self.starts.insert(part.flow.as_bytes().to_vec(), start);
                }
                starts.push(start);
            }
            self.behind.remove(&report.own);
            if let Some(behind) = report.behind.filter(|_| is_ours) {
                self.behind.insert(report.own, behind);
            }
            let others = self.behind.iter().filter(|(own, _)| **own != report.own);
            let behind = others.map(|(_, behind)| *behind).min();
            let heard = Heard { frame, time: self.time, behind, starts };
            shares.heard(&report, &heard, Instant::now());
        }
    }

    fn weight(weight: u32) -> NonZeroU32 {
        NonZeroU32::new(weight).expect("not zero")
    }

    #[test]
    fn what_a_flow_had_elsewhere_puts_it_back_here() {
        let (one, other, mut server) = (Shares::default(), Shares::default(), Server::default());
        let flow = Key::from("gold");
        for _ in 0..10 {
            one.admitted(&flow, weight(1), 100);
        }
        server.exchange(&one);
        assert_eq!(other.joined(&flow, weight(1), 100, None), 0);
        server.exchange(&other);
        // Who counts later takes over what the first counts by.
        server.exchange(&other);
        assert_eq!(other.start_of(&flow), Some(1_000 * PARTS));
    }

    #[test]
    fn who_is_ahead_of_one_that_waits_elsewhere_knows_by_how_much() {
        let (one, other, mut server) = (Shares::default(), Shares::default(), Server::default());
        let (gold, silver) = (Key::from("gold"), Key::from("silver"));
        one.joined(&silver, weight(1), 100, None);
        server.exchange(&one);
        other.admitted(&gold, weight(1), 1);
        server.exchange(&other);
        server.exchange(&other);
        for _ in 0..3 {
            other.admitted(&gold, weight(3), 100);
        }
        let ahead = other.ahead(&gold, weight(3)).expect("silver waits");
        assert!((300..=304).contains(&ahead.units), "{ahead:?}");
        assert_eq!(ahead.theirs, 100);
        // It waits no more.
        one.left(&silver);
        server.exchange(&one);
        other.admitted(&gold, weight(3), 100);
        server.exchange(&other);
        assert_eq!(other.ahead(&gold, weight(3)), None);
    }

    #[test]
    fn what_one_is_ahead_by_is_not_forgotten_though_another_is_ahead_by_more() {
        let (one, other, mut server) = (Shares::default(), Shares::default(), Server::default());
        let (gold, silver, bronze) = (Key::from("gold"), Key::from("silver"), Key::from("bronze"));
        one.joined(&silver, weight(1), 100, None);
        server.exchange(&one);
        other.joined(&bronze, weight(1), 1, None);
        server.exchange(&other);
        other.left(&bronze);
        other.admitted(&bronze, weight(1), 50);
        for _ in 0..3 {
            other.admitted(&gold, weight(1), 100);
        }
        server.exchange(&one);
        server.exchange(&other);
        assert_eq!(other.ahead(&bronze, weight(1)).map(|ahead| ahead.units), Some(50));
    }

    #[test]
    fn no_call_says_so_much_that_the_virtual_time_comes_to_its_end() {
        let (one, flow) = (Shares::default(), Key::from("gold"));
        for _ in 0..100 {
            one.admitted(&flow, weight(1), u64::MAX);
        }
        let report = one.report().expect("there is something to tell");
        assert!(report.time < 1 << 50, "{report:?}");
    }

    #[test]
    fn an_endless_row_of_flows_takes_no_more_memory_than_some() {
        let shares = Shares::default();
        for flow in 0..100_000_u64 {
            shares.admitted(&Key::from(flow), weight(1), 10);
        }
        let known = shares.0.lock().flows.len();
        assert!(known < 40_000, "{known}");
    }

    #[test]
    fn what_was_not_heard_is_told_again() {
        let (one, flow) = (Shares::default(), Key::from("gold"));
        one.admitted(&flow, weight(2), 10);
        let report = one.report().expect("there is something to tell");
        assert_eq!(report.flows[0].length, 5 * PARTS);
        one.admitted(&flow, weight(2), 10);
        one.unheard(report);
        let report = one.report().expect("there is something to tell");
        assert_eq!((report.flows[0].since, report.flows[0].length), (0, 10 * PARTS));
    }

    #[test]
    fn who_was_away_has_no_claim_to_what_others_had_meanwhile() {
        let (one, mut server) = (Shares::default(), Server::default());
        let (gold, silver) = (Key::from("gold"), Key::from("silver"));
        one.admitted(&silver, weight(1), 10);
        for _ in 0..50 {
            one.admitted(&gold, weight(1), 10);
        }
        server.exchange(&one);
        one.joined(&silver, weight(1), 10, None);
        // It starts with the last of the other, not where it was.
        assert_eq!(one.start_of(&silver), Some(490 * PARTS));
        server.exchange(&one);
        assert_eq!(one.start_of(&silver), Some(490 * PARTS));
    }
}
