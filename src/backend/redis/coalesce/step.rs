//! A job, those who want it done, and those of them for whom it is too late.

use std::time::Duration;

use tokio::time::Instant;

/// A job that is done once, however many want it.
pub(crate) struct Step<J> {
    pub(crate) job: J,
    /// When those who want it are to be told at the latest: mostly it is one.
    first: Instant,
    others: Vec<Instant>,
}

impl<J> Step<J> {
    pub(super) const fn of(job: J, deadline: Instant) -> Self {
        Self { job, first: deadline, others: Vec::new() }
    }

    /// One more wants it.
    pub(super) fn join(&mut self, deadline: Instant) {
        self.others.push(deadline);
    }

    /// How many want it.
    pub(crate) const fn wanted_by(&self) -> usize {
        1 + self.others.len()
    }

    fn deadlines(&self) -> impl Iterator<Item = Instant> + Clone {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    /// Keeps those of whom `stays`, asked of each in turn, says so. Gives whether there are any.
    fn retain(&mut self, mut stays: impl FnMut() -> bool) -> bool {
        let mut left = self.deadlines().filter(|_| stays());
        let Some(first) = left.next() else { return false };
        let others = left.collect();
        (self.first, self.others) = (first, others);
        true
    }
}

/// Keeps those who stay, of all who want something, and what they want.
pub(super) fn retain<J>(steps: &mut Vec<Step<J>>, stay: &[bool]) {
    let mut stay = stay.iter().copied();
    steps.retain_mut(|step| step.retain(|| stay.next().unwrap_or(true)));
}

/// What is on its way when half of the time-out of some was over before it left: they are told so,
/// and not carried.
pub(crate) struct Late {
    /// Whether each of all is in time, if not all are.
    in_time: Option<Vec<bool>>,
    /// How much of their time is left to the others, at the least.
    pub(crate) within: Duration,
}

impl Late {
    /// Parts those from `steps` who are late. What `is_patient` leaves however late it is, and has
    /// half of the time-out then: no more than is left to anybody behind it.
    ///
    /// Who has less than half of the time-out left does not leave: a call ends with the time of
    /// whoever has least, and charges all others for nothing.
    pub(crate) fn part<J>(
        steps: &mut Vec<Step<J>>,
        timeout: Duration,
        is_patient: impl Fn(&J) -> bool,
    ) -> Self {
        let now = Instant::now();
        // What is left to each, if it is enough.
        let left = steps.iter().flat_map(|step| {
            let is_patient = is_patient(&step.job);
            step.deadlines().map(move |deadline| {
                let left = deadline.saturating_duration_since(now);
                if is_patient {
                    Some(left.max(timeout / 2))
                } else {
                    Some(left).filter(|it| *it > timeout / 2)
                }
            })
        });
        let within = left.clone().flatten().fold(timeout, Duration::min);
        if left.clone().all(|left| left.is_some()) {
            return Self { in_time: None, within };
        }
        let in_time: Vec<bool> = left.map(|left| left.is_some()).collect();
        retain(steps, &in_time);
        Self { in_time: Some(in_time), within }
    }

    /// What those are told who were late, in their places among all. `None` if nobody was.
    pub(crate) fn told<R>(&self, late: impl Fn() -> R) -> Option<Vec<Option<R>>> {
        let in_time = self.in_time.as_ref()?;
        Some(in_time.iter().map(|is| (!is).then(&late)).collect())
    }

    /// The replies to all: to those who were late what `late` says, and among them those to what
    /// was `done`, in their order.
    pub(crate) fn among<R>(&self, done: Vec<R>, late: impl Fn() -> R) -> Vec<R> {
        let Some(in_time) = &self.in_time else { return done };
        let mut done = done.into_iter();
        in_time.iter().map_while(|is| if *is { done.next() } else { Some(late()) }).collect()
    }
}
