//! What the script says.

use redis::Value;

use super::super::{
    error::{StoreError, StoreErrorKind},
    id::{Owner, RequestId},
    status::{Failure, State, Status, of_micros},
};

/// The fields of a reply, one after the other.
pub(super) struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    pub(super) fn of(reply: Value) -> Result<Self, StoreError> {
        match reply {
            Value::Array(fields) => Ok(Self(fields.into_iter())),
            _ => Err(malformed()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn text(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(text)) => Ok(text),
            _ => Err(malformed()),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        whole(&self.text()?)
    }

    pub(super) fn small(&mut self) -> Result<u32, StoreError> {
        self.number()?.try_into().map_err(|_| malformed())
    }

    /// A row of fields; `None` at the end.
    pub(super) fn row(&mut self) -> Result<Option<Self>, StoreError> {
        self.0.next().map(Self::of).transpose()
    }

    pub(super) fn id(&mut self) -> Result<RequestId, StoreError> {
        let text = self.text()?;
        str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
    }

    pub(super) fn owner(&mut self) -> Result<Owner, StoreError> {
        let text = self.text()?;
        let number =
            str::from_utf8(&text).ok().and_then(|text| u128::from_str_radix(text, 16).ok());
        number.map(|number| Owner::from_bytes(number.to_be_bytes())).ok_or_else(malformed)
    }

    pub(super) fn is_ours(&mut self) -> Result<bool, StoreError> {
        match self.text()?.as_slice() {
            b"ours" => Ok(true),
            b"lost" => Ok(false),
            _ => Err(malformed()),
        }
    }

    pub(super) fn status(&mut self, id: RequestId) -> Result<Status, StoreError> {
        let state = u8::try_from(self.number()?).ok().and_then(State::from_number);
        let state = state.ok_or_else(malformed)?;
        let failure = u8::try_from(self.number()?).map_err(|_| malformed())?;
        let attempts = self.small()?;
        let (submitted, expires) = (of_micros(self.number()?), of_micros(self.number()?));
        let mut status = Status::new(id, submitted, expires);
        (status.state, status.failure) = (state, Failure::from_number(failure));
        (status.attempts, status.next) = (attempts, of_micros(self.number()?));
        Ok(status)
    }
}

pub(super) fn whole(text: &[u8]) -> Result<u64, StoreError> {
    str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
}

pub(super) fn malformed() -> StoreError {
    StoreError::new(StoreErrorKind::Malformed)
}
