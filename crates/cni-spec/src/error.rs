//! Errors as the protocol prints them (CNI specification, "Error").

use std::error::Error;
use std::fmt;
use std::io;

use serde_json::{Map, Value};

use crate::json;

/// An error code on the wire. Up to 99 belong to the specification, from 100 on to plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// A delegate failed without giving a code.
    pub const NONE: Code = Code(0);
    /// The configuration's version is not supported, or does not have the verb.
    pub const INCOMPATIBLE_VERSION: Code = Code(1);
    /// A key that is understood holds a value that is not supported.
    pub const UNSUPPORTED_FIELD: Code = Code(2);
    /// The container is unknown or does not exist.
    pub const UNKNOWN_CONTAINER: Code = Code(3);
    /// A required variable is missing or malformed.
    pub const INVALID_ENVIRONMENT: Code = Code(4);
    /// A file or stream cannot be read or written.
    pub const IO: Code = Code(5);
    /// JSON that does not decode.
    pub const DECODING: Code = Code(6);
    /// JSON that decodes and makes no sense.
    pub const INVALID_CONFIG: Code = Code(7);
    /// The network namespace is not one, or is the plugin's own.
    pub const INVALID_NETNS: Code = Code(8);
    /// Something temporary: the runtime should try again.
    pub const TRY_AGAIN_LATER: Code = Code(11);
    /// STATUS: the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: Code = Code(50);
    /// STATUS: the plugin cannot serve ADD and attached containers may have lost their network.
    pub const NOT_AVAILABLE_DEGRADED: Code = Code(51);
    /// Ours: a range set has no address left, or the address asked for cannot be had.
    pub const ADDRESS_NOT_AVAILABLE: Code = Code(100);
    /// Ours: an interface of the wanted name is there already.
    pub const INTERFACE_EXISTS: Code = Code(101);
    /// Ours: CHECK found something else than ADD had made.
    pub const CHECK_FAILED: Code = Code(102);
    /// Anything else, as the reference numbers it: the kernel or a tool refused a step.
    pub const INTERNAL: Code = Code(999);
}

/// What has a code of its own when it ends a verb.
pub trait Coded: Error {
    /// The code on the wire.
    fn code(&self) -> Code;

    /// What to do next, or what else is known; becomes part of `details`.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// The error object of the protocol: what a plugin prints when a verb fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Wire: `code`.
    pub code: Code,
    /// One sentence. Where the reference has one it is that one, unchanged. Wire: `msg`.
    pub msg: String,
    /// The causes and what to do next; empty if there is nothing to add. Wire: `details`.
    pub details: String,
}

impl Failure {
    /// A failure without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Failure {
        Failure {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same with details.
    pub fn with_details(mut self, details: impl Into<String>) -> Failure {
        self.details = details.into();
        self
    }

    /// From an error of ours: its own text, then its causes and its hint as details.
    pub fn of(error: &(impl Coded + 'static)) -> Failure {
        let msg = error.to_string();
        let mut details = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !msg.ends_with(&text) {
                details.push(text);
            }
            cause = error.source();
        }
        let mut details = details.join(": ");
        if let Some(hint) = error.hint() {
            if !details.is_empty() {
                details.push_str("; ");
            }
            details.push_str(&hint);
        }
        Failure {
            code: error.code(),
            msg,
            details,
        }
    }

    /// The JSON that goes to standard output: indented by four spaces, no newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        let mut object = Map::new();
        object.insert("code".into(), self.code.0.into());
        object.insert("msg".into(), self.msg.as_str().into());
        if !self.details.is_empty() {
            object.insert("details".into(), self.details.as_str().into());
        }
        json::to_pretty(&Value::Object(object))
    }
}

/// `msg`, or `msg; details`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        Ok(())
    }
}

impl Error for Failure {}

impl<E: Coded + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::of(&error)
    }
}

/// The text of an operating system error as the reference prints it: `file exists`, not `File exists (os error 17)`.
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    if error.raw_os_error().is_none() {
        return text;
    }
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first)
            if letters
                .clone()
                .next()
                .is_some_and(|second| !second.is_uppercase()) =>
        {
            first.to_lowercase().chain(letters).collect()
        }
        Some(_) | None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P28
    #[test]
    fn p28_text_is_msg_or_msg_and_details() {
        let failure = Failure::new(Code::INTERNAL, "some message");
        assert_eq!(failure.to_string(), "some message");
        assert_eq!(
            failure.with_details("more").to_string(),
            "some message; more"
        );
    }

    #[test]
    fn json_leaves_out_empty_details_and_ends_without_newline() {
        let json = String::from_utf8(Failure::new(Code(0), "<a>").to_json()).unwrap();
        assert_eq!(
            json,
            "{\n    \"code\": 0,\n    \"msg\": \"\\u003ca\\u003e\"\n}"
        );
    }

    #[test]
    fn os_errors_read_as_in_the_reference() {
        assert_eq!(os_text(&io::Error::from_raw_os_error(17)), "file exists");
        assert_eq!(
            os_text(&io::Error::from_raw_os_error(16)),
            "device or resource busy"
        );
        assert_eq!(os_text(&io::Error::other("as it is")), "as it is");
    }
}
