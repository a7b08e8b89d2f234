//! The harness of the end-to-end suite: nodes and pods made of fresh namespaces ([`node`]), the runtime that calls the
//! plugins on them ([`cni`], [`list`]), and eyes that share no code with what they look at ([`ip`], [`traffic`]; [`state`]
//! for all at once, with [`names`] for what is random). [`differences`] is where ours and the reference part.
//!
//! Nothing here links a plugin. The suite examines whatever binaries are on `CNI_PATH`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness that cannot go on fails its test"
)]

pub mod cni;
pub mod differences;
pub mod ip;
pub mod list;
pub mod names;
pub mod node;
pub mod state;
pub mod traffic;

pub use cni::{Failure, Outcome, Plugins, Release};
pub use list::List;
pub use node::{Node, Pod};

/// Every version of the specification, oldest first.
pub const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];
