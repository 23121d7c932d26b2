//! Slots: who gets them, in which order, and that each comes back however its request ends.

mod body;
mod limiter;
mod model;
mod random;
mod service;
mod threads;
