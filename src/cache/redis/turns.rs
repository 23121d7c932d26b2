//! Turns that are held on the server: taken by a token, renewed, and given back.

use std::{
    fmt::Write,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use futures::channel::oneshot;
use redis::Value;
use tokio::{runtime::Handle, time::timeout};

use super::{calls::Calls, value::millis};
use crate::{
    backend::redis::{Source, call::Script},
    cache::turn::{Turn, TurnEnd},
    error::BackendError,
};

pub(super) struct Turns<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    calls: Arc<Calls<S>>,
    hold: Script,
    lease: Duration,
}

/// A turn that may have been taken: nobody has heard yet. Dropped, it is given back.
pub(super) struct Begun<S: Source> {
    shared: Option<Arc<Shared<S>>>,
    name: Vec<u8>,
    token: String,
}

impl<S: Source> Turns<S> {
    pub(super) fn new(calls: Arc<Calls<S>>, lease: Duration) -> Self {
        let hold = Script::new(include_str!("hold.lua"));
        Self { shared: Arc::new(Shared { calls, hold, lease }) }
    }

    pub(super) fn lease_millis(&self) -> u64 {
        millis(self.shared.lease)
    }

    /// A turn that is about to be asked for, under this name.
    pub(super) fn begin(&self, name: &[u8]) -> Begun<S> {
        Begun { shared: Some(Arc::clone(&self.shared)), name: name.to_vec(), token: token() }
    }

    pub(super) async fn renew(&self, name: &[u8], token: &str) -> Result<bool, BackendError> {
        self.shared.renew(name, token).await
    }

    pub(super) async fn free(&self, name: &[u8], token: &str) -> Result<bool, BackendError> {
        self.shared.end(name, token, TurnEnd::Failed).await
    }
}

impl<S: Source> Begun<S> {
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// It was not taken: there is nothing to give back.
    pub(super) fn forget(mut self) {
        self.shared = None;
    }

    /// It was taken, and is kept until its end.
    pub(super) fn hold(mut self) -> Turn {
        let Some(shared) = self.shared.take() else { return Turn::free() };
        let (name, token) = (std::mem::take(&mut self.name), std::mem::take(&mut self.token));
        let (tell, told) = oneshot::channel();
        drop(tokio::spawn(async move { shared.hold(&name, &token, told).await }));
        Turn::new(move |end| {
            // Nobody listens any more where it was lost.
            let _ = tell.send(end);
        })
    }
}

impl<S: Source> Drop for Begun<S> {
    fn drop(&mut self) {
        // Without a runtime it ends by itself.
        if let (Some(shared), Ok(runtime)) = (self.shared.take(), Handle::try_current()) {
            let (name, token) = (std::mem::take(&mut self.name), std::mem::take(&mut self.token));
            let give_back = async move {
                // Should it fail, it ends by itself.
                drop(shared.end(&name, &token, TurnEnd::Failed).await);
            };
            drop(runtime.spawn(give_back));
        }
    }
}

impl<S: Source> Shared<S> {
    /// Renews a turn until it is told of its end.
    async fn hold(&self, name: &[u8], token: &str, mut told: oneshot::Receiver<TurnEnd>) {
        let end = loop {
            match timeout(self.lease / 3, &mut told).await {
                Ok(end) => break end.unwrap_or(TurnEnd::Failed),
                Err(_) => {
                    // It is somebody else's by now: what comes of it is nobody's business. After an
                    // error there is time for another try or two.
                    if let Ok(false) = self.renew(name, token).await {
                        return;
                    }
                }
            }
        };
        // Should it fail, it ends by itself.
        drop(self.end(name, token, end).await);
    }

    async fn renew(&self, name: &[u8], token: &str) -> Result<bool, BackendError> {
        self.act(name, token, "renew", self.lease).await
    }

    async fn end(&self, name: &[u8], token: &str, end: TurnEnd) -> Result<bool, BackendError> {
        match end {
            TurnEnd::Kept | TurnEnd::Failed => self.act(name, token, "free", Duration::ZERO).await,
            TurnEnd::Unshared => self.act(name, token, "alone", ALONE).await,
        }
    }

    /// Whether the turn was the token's.
    async fn act(
        &self,
        name: &[u8],
        token: &str,
        what: &str,
        time: Duration,
    ) -> Result<bool, BackendError> {
        let arguments = [token, what, &millis(time).to_string()];
        let arguments = arguments.map(|argument| argument.as_bytes().to_vec());
        let reply = self.calls.call(&self.hold, &[name], &arguments).await?;
        Ok(reply == Value::Int(1))
    }
}

/// Sixteen random bytes. A hasher's keys are the only randomness in the standard library, and
/// enough to tell one turn from another.
fn token() -> String {
    let mut token = String::with_capacity(32);
    for half in 0..2_u8 {
        let number = RandomState::new().hash_one(half);
        // To write to a string cannot fail.
        let _infallible = write!(token, "{number:016x}");
    }
    token
}

/// So long each asks for itself after an answer that was not for others: all who waited have looked
/// again by then.
const ALONE: Duration = Duration::from_secs(1);
