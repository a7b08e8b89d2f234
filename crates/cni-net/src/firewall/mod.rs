//! The packet filter: the only place that runs its tools.

pub mod name;
