//! Who the client is, and who it must never be taken for.

#![cfg(feature = "http")]

mod answers;
mod grammar;
mod hostile;
mod lists;
mod model;
mod settings;
mod support;
