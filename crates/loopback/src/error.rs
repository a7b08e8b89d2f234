//! What can go wrong, in the reference's words.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use cni_net::{KernelError, NetnsError, StepError};
use cni_spec::json::TypeError;
use cni_spec::result::ResultError;
use cni_spec::{Code, Coded};

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key with a value of the wrong type.
    #[error("failed to parse network config: {0}")]
    Config(#[source] TypeError),
    /// A result of another plugin that is none.
    #[error("failed to parse prevResult: could not parse prevResult: {0}")]
    PrevResult(#[source] ResultError),
    /// `CNI_NETNS` leads to no namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The namespace cannot be worked in.
    #[error("cannot work in the network namespace `{netns}`")]
    Socket {
        /// `CNI_NETNS`.
        netns: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The kernel does not answer.
    #[error("failed to read `lo`: {0}")]
    Kernel(#[source] KernelError),
    /// The kernel refused to set `lo` up or down.
    #[error(transparent)]
    Step(Box<StepError>),
    /// `lo` has an address that is reached from elsewhere.
    #[error("loopback interface found with non-loopback address \"{0}\"")]
    NotLoopback(IpAddr),
    /// CHECK: `lo` is down, or gone.
    #[error("loopback interface is down")]
    Down,
}

impl Error {
    /// Is there no network namespace at the path, be it nothing or something else?
    pub(crate) fn no_namespace(&self) -> bool {
        match self {
            Error::Netns(NetnsError::NotANamespace { .. }) => true,
            Error::Netns(
                NetnsError::NotThere { error, .. } | NetnsError::Unusable { error, .. },
            ) => {
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
            }
            // setns(2): the file is of another kind of namespace, or none at all.
            Error::Socket { error, .. } => error.kind() == ErrorKind::InvalidInput,
            Error::Config(_)
            | Error::PrevResult(_)
            | Error::Kernel(_)
            | Error::Step(_)
            | Error::NotLoopback(_)
            | Error::Down => false,
        }
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Error {
        Error::Step(Box::new(error))
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Error::Config(_) => Code::DECODING,
            Error::PrevResult(_) => Code::INVALID_CONFIG,
            Error::Netns(_) => Code::INVALID_NETNS,
            Error::Socket { .. } | Error::Kernel(_) | Error::Step(_) => Code::INTERNAL,
            Error::NotLoopback(_) => Code::INTERFACE_EXISTS,
            Error::Down => Code::CHECK_FAILED,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::NotLoopback(address) => Some(format!(
                "nothing but 127.0.0.0/8 and ::1 belongs on `lo`; `ip addr del` removes {address} there"
            )),
            Error::Down => {
                Some("something in the container has set `lo` down since ADD".to_owned())
            }
            Error::Step(error) => error.explanation().map(str::to_owned),
            Error::Config(_)
            | Error::PrevResult(_)
            | Error::Netns(_)
            | Error::Socket { .. }
            | Error::Kernel(_) => None,
        }
    }
}
