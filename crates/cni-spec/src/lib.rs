//! The Container Network Interface protocol as types.
//!
//! Knows: what a request, a configuration, a result and an error are, in every published version of the
//! specification, and how each is spelled as JSON. Refuses to know: files, processes, the kernel, any one plugin.
//!
//! Text formats (numbers, quoting, key matching, error sentences) are those of the reference implementation, which is
//! written in Go: programs and people match on them.
#![warn(missing_docs)]

pub mod address;
pub mod args;
pub mod conf;
pub mod error;
pub mod json;
pub mod name;
pub mod quote;
pub mod request;
pub mod result;
pub mod version;

pub use error::{Code, Coded, Failure};
pub use request::{Attachment, Command};
pub use result::{Dns, Interface, Ip, Route, Success};
pub use version::Version;
