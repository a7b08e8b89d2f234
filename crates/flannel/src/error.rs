//! What can go wrong here, with the reference's sentences where it has them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cni_spec::error::os_text;
use cni_spec::json::TypeError;
use cni_spec::{Code, Coded, Failure};

use crate::subnet_env::SubnetEnvError;

/// An error of this plugin, as against one of the delegate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to load flannel netconf file: failed to load netconf: {0}")]
    Netconf(TypeError),
    #[error(
        "failed to load flannel 'subnet.env' file: {0}. Check the flannel pod log for this node."
    )]
    SubnetEnv(SubnetEnvError),
    #[error("'delegate' dictionary, if present, must have (string) 'type' field")]
    DelegateType,
    #[error("'delegate' dictionary must not have 'name' field, it'll be set by flannel")]
    DelegateName,
    #[error("'delegate' dictionary must not have 'ipam' field, it'll be set by flannel")]
    DelegateIpam,
    #[error(
        "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes: {0}"
    )]
    Routes(String),
    #[error(
        "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes: a route has no `dst`"
    )]
    RouteWithoutDestination,
    #[error("the delegate's configuration is larger than 1 MiB")]
    DelegateSize,
    #[error("{operation} {}: {}", .path.display(), os_text(.error))]
    State {
        operation: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("no state of this attachment in `{}`", .0.display())]
    NoState(PathBuf),
    #[error("the state file of this attachment in `{}` holds no configuration", .0.display())]
    TornState(PathBuf),
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Error::Netconf(_) => Code::DECODING,
            Error::SubnetEnv(SubnetEnvError::Unreadable { error, .. })
                if error.kind() == io::ErrorKind::NotFound =>
            {
                Code::TRY_AGAIN_LATER
            }
            Error::SubnetEnv(SubnetEnvError::Unreadable { .. }) | Error::State { .. } => Code::IO,
            Error::SubnetEnv(SubnetEnvError::Incomplete { .. }) => Code::TRY_AGAIN_LATER,
            Error::SubnetEnv(SubnetEnvError::Malformed { .. })
            | Error::DelegateType
            | Error::DelegateName
            | Error::DelegateIpam
            | Error::Routes(_)
            | Error::RouteWithoutDestination
            | Error::DelegateSize => Code::INVALID_CONFIG,
            Error::NoState(_) | Error::TornState(_) => Code::CHECK_FAILED,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::SubnetEnv(error) => Some(SubnetEnvHint(error).to_string()),
            Error::NoState(_) => {
                Some("the attachment was never made, or was undone; start the pod anew".to_owned())
            }
            Error::TornState(_) => Some(
                "the node may have lost power while it was written; start the pod anew".to_owned(),
            ),
            Error::Netconf(_)
            | Error::DelegateType
            | Error::DelegateName
            | Error::DelegateIpam
            | Error::Routes(_)
            | Error::RouteWithoutDestination
            | Error::DelegateSize
            | Error::State { .. } => None,
        }
    }
}

/// Who writes `subnet.env`, and how far that has come.
struct SubnetEnvHint<'a>(&'a SubnetEnvError);

impl fmt::Display for SubnetEnvHint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SubnetEnvError::Unreadable { path, error, .. }
                if error.kind() == io::ErrorKind::NotFound =>
            {
                let folder = Path::new(path).parent().unwrap_or(Path::new(""));
                if path.is_empty() {
                    write!(
                        f,
                        "`subnetFile` is empty; without the key it is `/run/flannel/subnet.env`"
                    )
                } else if folder.is_dir() {
                    write!(
                        f,
                        "flanneld writes `{path}` at the end of its start, and has not come that far"
                    )
                } else {
                    write!(
                        f,
                        "`{}` does not exist, so flanneld has never run since this node booted; ",
                        folder.display()
                    )?;
                    write!(f, "it writes `{path}` at the end of its start")
                }
            }
            SubnetEnvError::Unreadable { path, .. } => {
                write!(f, "flanneld writes `{path}` as a plain file")
            }
            SubnetEnvError::Incomplete { path, .. } => {
                write!(
                    f,
                    "flanneld writes `{path}` at the end of its start, and may not be done"
                )
            }
            SubnetEnvError::Malformed { path, line, .. } => {
                write!(
                    f,
                    "line {line} of `{path}`; flanneld writes that file anew when it is restarted"
                )
            }
        }
    }
}

/// Nothing if there are no failures, one as it is, several as one: the first's code, everybody's text.
pub(crate) fn together(failures: Vec<Failure>) -> Result<(), Failure> {
    let mut failures = failures.into_iter();
    let Some(mut all) = failures.next() else {
        return Ok(());
    };
    for other in failures {
        all.msg = format!("{}; {}", all.msg, other.msg);
        if !other.details.is_empty() {
            let separator = if all.details.is_empty() { "" } else { "; " };
            all.details = format!("{}{separator}{}", all.details, other.details);
        }
    }
    Err(all)
}
