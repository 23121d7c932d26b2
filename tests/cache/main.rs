//! Answers that serve more than one request, and those that must not.

mod bounds;
mod canonical;
mod flights;
mod kept;
mod keys;
mod spared;
mod support;
mod time;
