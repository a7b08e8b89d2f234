//! What can go wrong, each with the reference's sentence, its code, and what to do about it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::error::os_text;
use cni_spec::{Code, Coded};

use crate::store::StoreError;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{action} {}: {}", path.display(), os_text(source))]
    ResolvConf {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("failed to allocate for range {set}: {refusal}")]
    Allocate { set: usize, refusal: Refusal },
    #[error("failed to allocate all requested IPs: {}", joined(ips))]
    RequestsLeftOver { ips: Vec<IpAddr> },
    #[error("host-local: Failed to find address added by container {id}")]
    NoLease { id: String, dir: PathBuf },
    #[error("{}", joined_by(errors, ";"))]
    Several { errors: Vec<StoreError> },
    #[error("leases cannot be written: {0}")]
    NotWritable(StoreError),
}

/// Why a range set gave no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no IP addresses available in range set: {ranges}")]
    Exhausted {
        ranges: String,
        dir: PathBuf,
        leases: usize,
    },
    #[error("{ip} has been allocated to {id}, duplicate allocation is not allowed")]
    Duplicate {
        ip: IpAddr,
        id: String,
        file: PathBuf,
    },
    #[error("requested ip {0} is subnet's gateway")]
    Gateway(IpAddr),
    #[error("requested IP address {ip} is not available in range set {ranges}")]
    Taken {
        ip: IpAddr,
        ranges: String,
        file: PathBuf,
        holder: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Error::ResolvConf { .. } | Error::Several { .. } => Code::IO,
            Error::Store(error)
            | Error::Allocate {
                refusal: Refusal::Store(error),
                ..
            } => error.code(),
            Error::Allocate { .. } | Error::RequestsLeftOver { .. } => Code::ADDRESS_NOT_AVAILABLE,
            Error::NoLease { .. } => Code::CHECK_FAILED,
            Error::NotWritable(_) => Code::NOT_AVAILABLE,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::ResolvConf { .. } => Some("the file is that of `ipam.resolvConf`".to_owned()),
            Error::Store(error) | Error::NotWritable(error) => error.hint(),
            Error::Allocate { refusal, .. } => refusal.hint(),
            Error::RequestsLeftOver { .. } => Some(
                "a range set gives one address; these lie in none, or in one that gave another"
                    .to_owned(),
            ),
            Error::NoLease { dir, .. } => Some(format!("no file in `{}` names it", dir.display())),
            Error::Several { errors } => errors.first().and_then(StoreError::hint),
        }
    }
}

impl Refusal {
    fn hint(&self) -> Option<String> {
        match self {
            Refusal::Exhausted { dir, leases, .. } => Some(format!(
                "`{}` holds {leases} leases of these ranges; those of pods that are gone are freed by GC, \
                 or by removing their files",
                dir.display()
            )),
            Refusal::Duplicate { file, .. } => Some(format!(
                "`{}` is the lease; DEL of this container and interface frees it",
                file.display()
            )),
            Refusal::Gateway(_) => {
                Some("ask for another address, or set another `gateway`".to_owned())
            }
            Refusal::Taken { file, holder, .. } => {
                Some(format!("`{}` is held by {holder}", file.display()))
            }
            Refusal::Store(error) => error.hint(),
        }
    }
}

fn joined(ips: &[IpAddr]) -> String {
    joined_by(ips, " ")
}

fn joined_by<T: ToString>(items: &[T], separator: &str) -> String {
    items
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(separator)
}
