//! The shell around a plugin: environment and standard input in, JSON and an exit status out.
//!
//! Knows: the protocol's order of things, standard streams, and how one plugin runs another. Refuses to know: what any
//! plugin does, and the kernel.
//!
//! A plugin is a [`Plugin`]; its `main` is one call of [`run`]. A plugin that runs another one calls
//! [`Call::delegate`], and never learns whether that was a process or a call within this one.
#![warn(missing_docs)]

mod call;
mod delegate;
mod dispatch;
mod environment;
mod run;

use cni_spec::conf::ValidAttachment;
use cni_spec::{Attachment, Failure, version};
use serde_json::Value;

pub use call::Call;
pub use delegate::Lease;
pub use dispatch::{Outcome, dispatch};
pub use environment::Environment;
pub use run::{run, run_by_name};

/// A plugin: one method a verb. The dispatcher has checked environment, versions and the network's name before.
pub trait Plugin: Sync {
    /// The line that is printed when a person runs the program by hand.
    fn about(&self) -> String;

    /// The supported versions, oldest first.
    fn versions(&self) -> &'static [&'static str] {
        &version::SUPPORTED
    }

    /// Attaches a container; the result, already in the layout of the configuration's version (see [`Call::encode`]),
    /// so that one that cannot be printed fails while everything can still be undone.
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure>;

    /// Detaches a container. What is gone already is no error.
    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure>;

    /// Is the container attached as ADD left it?
    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure>;

    /// Removes what belongs to this network and to none of the `valid` attachments.
    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure>;

    /// Could ADD be served?
    fn status(&self, call: &Call<'_>) -> Result<(), Failure>;
}

/// Plugins by their `type`, as a program with several of them has them.
pub type Registry = [(&'static str, &'static dyn Plugin)];
