use std::time::Duration;

use redis::Value;

use super::guard::Guard;
use crate::{
    backend::{
        guarded::BreakerState,
        redis::{
            Source,
            call::{Script, call},
            name::slot,
        },
    },
    error::BackendError,
    name::PolicyName,
};

/// Calls to the server, by whoever makes them.
pub(super) struct Calls<S> {
    source: S,
    guard: Guard,
    timeout: Duration,
}

impl<S: Source> Calls<S> {
    pub(super) fn new(source: S, name: PolicyName, timeout: Duration) -> Self {
        Self { source, guard: Guard::new(name, timeout), timeout }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.guard.state()
    }

    /// Calls a script with keys of one slot.
    pub(super) async fn call(
        &self,
        script: &Script,
        keys: &[&[u8]],
        arguments: &[Vec<u8>],
    ) -> Result<Value, BackendError> {
        let slot = if S::HAS_SLOTS { slot(keys[0]) } else { 0 };
        self.guard.call(call(&self.source, script, slot, keys, arguments, self.timeout)).await
    }
}

/// What a look tells.
pub(super) enum Reply {
    /// An answer, behind what it has left in ms.
    Found(u64, Vec<u8>),
    /// The turn is ours.
    Ask,
    /// It is somebody else's.
    Wait,
    /// Each has to ask.
    Alone,
    Nothing,
}

impl Reply {
    pub(super) fn of(value: Value) -> Option<Self> {
        let Value::Array(mut fields) = value else { return None };
        match (fields.pop(), fields.pop()) {
            (None, _) => Some(Self::Nothing),
            (Some(Value::BulkString(answer)), Some(Value::Int(left))) => {
                Some(Self::Found(u64::try_from(left).ok()?, answer))
            }
            (Some(Value::BulkString(word)), None) => match &word[..] {
                b"ask" => Some(Self::Ask),
                b"wait" => Some(Self::Wait),
                b"alone" => Some(Self::Alone),
                _ => None,
            },
            _ => None,
        }
    }
}
