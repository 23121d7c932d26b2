//! Requests that are deferred.

mod disk;
mod support;
