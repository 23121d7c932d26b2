use std::{any::Any, fmt, time::Duration};

use futures::future::BoxFuture;

use crate::{decision::Decision, error::BackendError};

/// A demand that a server can decide together with others, on other limits and keys: all of them
/// are met, or none, in one step. [`All`](crate::limiter::All) asks for it.
///
/// It is made by the backends of this crate, and passed on by those that wrap them.
pub struct Joint {
    place: Place,
    name: Vec<u8>,
    errand: Errand,
    carry: Carry,
    within: Duration,
    /// What those who wrap the backend make of its answer, the innermost first.
    heard: Vec<Hear>,
}

/// What can be decided on together: a server, and on a cluster a slot.
pub(crate) type Place = (usize, u16);
/// The job, in the terms of the backend.
pub(crate) type Errand = Box<dyn Any + Send>;
/// What a backend says of one of the demands.
pub(crate) type Answer = Result<Decision, BackendError>;
/// Carries out errands of one place, within a time.
pub(crate) type Carry =
    fn(Vec<Errand>, Duration) -> BoxFuture<'static, Result<Vec<Answer>, BackendError>>;

type Hear = Box<dyn FnOnce(Answer) -> Answer + Send>;

/// What became of demands that were decided on together.
pub(crate) struct Carried {
    /// In the order of the demands.
    pub(crate) answers: Vec<Answer>,
    /// The server has answered: then all were taken, or, if one was refused, none. Otherwise each
    /// was decided on by itself, by those who wrap the backend.
    pub(crate) as_one: bool,
}

impl Joint {
    #[cfg(feature = "redis")]
    pub(crate) fn new(
        place: Place,
        name: Vec<u8>,
        errand: Errand,
        carry: Carry,
        within: Duration,
    ) -> Self {
        Self { place, name, errand, carry, within, heard: Vec::new() }
    }

    /// The same within this time at most, and with its answer passed to `hear` before anybody else.
    #[cfg(feature = "local")]
    pub(crate) fn heard_by(
        mut self,
        within: Duration,
        hear: impl FnOnce(Answer) -> Answer + Send + 'static,
    ) -> Self {
        self.within = self.within.min(within);
        self.heard.push(Box::new(hear));
        self
    }

    /// Whether these can be decided on together. Two on one key cannot: what one takes the other
    /// must see.
    pub(crate) fn fit(all: &[Self]) -> bool {
        all.iter().enumerate().all(|(at, one)| {
            one.place == all[0].place && all[..at].iter().all(|other| other.name != one.name)
        })
    }

    /// Decides on all of them, which [fit](Self::fit).
    pub(crate) async fn carry(all: Vec<Self>) -> Carried {
        let within = all.iter().map(|joint| joint.within).min().unwrap_or_default();
        let Some(carry) = all.first().map(|joint| joint.carry) else {
            return Carried { answers: Vec::new(), as_one: true };
        };
        let mut errands = Vec::with_capacity(all.len());
        let mut heard = Vec::with_capacity(all.len());
        for joint in all {
            errands.push(joint.errand);
            heard.push(joint.heard);
        }
        let carried = carry(errands, within).await;
        let as_one = carried.is_ok();
        let answers: Vec<Answer> = match carried {
            Ok(answers) => answers,
            Err(error) => heard.iter().map(|_| Err(error.clone())).collect(),
        };
        let hear = |(answer, heard): (Answer, Vec<Hear>)| {
            heard.into_iter().fold(answer, |answer, hear| hear(answer))
        };
        Carried { answers: answers.into_iter().zip(heard).map(hear).collect(), as_one }
    }
}

impl fmt::Debug for Joint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joint").finish_non_exhaustive()
    }
}
