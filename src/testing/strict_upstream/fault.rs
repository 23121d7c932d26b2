use std::time::Duration;

/// Something that goes wrong with a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The provider is overloaded: 503, or 529 where Anthropic is spoken. Nothing is charged.
    Overloaded,
    /// The provider broke: 500. Nothing is charged.
    Broken,
    /// The account is out of money: 429 with `insufficient_quota`, or 400 where Anthropic is
    /// spoken, or 403 where Gemini is. Nothing is charged, and waiting does not help.
    OutOfMoney,
    /// The answer's body ends with an error after as many bytes. The call is charged.
    CutAt(usize),
    /// The answer begins later by as much.
    Delay(Duration),
}
