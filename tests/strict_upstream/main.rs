//! The strict upstream itself: what it says, and what it counts. It judges others, so it is held to
//! the recorded answers of the real ones and to a count that is plainer still.

mod anthropic;
mod books;
mod faults;
mod gemini;
mod openai;
mod support;
