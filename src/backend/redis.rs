//! State on a Redis or Valkey server, shared by any number of instances.

mod coalesce;
mod refusals;
