//! The packet filter: the only place that runs its tools.
//!
//! Knows: how [`iptables`] and [`nft`] are started with all of a change at once, how to read what is there, and how the
//! kernel itself is asked, and told to remove something ([`ruleset`]) or to add it ([`direct`]), where that saves a
//! process. Refuses to know: why a rule is wanted.
//!
//! A tool is started and left to itself ([`tool::Job`]), so that it works while its caller does; everything concerns
//! the network namespace that the calling thread is in.

pub mod conntrack;
pub mod direct;
pub mod iptables;
pub mod name;
mod nf_tables;
mod nfnetlink;
pub mod nft;
pub mod port_rule;
pub mod ruleset;
pub mod tool;
pub mod usable;

#[cfg(test)]
mod tests;
