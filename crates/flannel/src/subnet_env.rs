//! `subnet.env`: what flanneld writes about this node, one `KEY=VALUE` a line.
//!
//! A line counts if the text before its first `=` is exactly a key that is known: no white space, no quotes, no
//! `export`. Other lines are passed over, and of several with one key the last counts. A carriage return at the end
//! of a line is dropped.

use std::io::{self, Read};
use std::path::Path;

use cni_spec::address::{self, AddressError};
use cni_spec::error::os_text;
use cni_spec::quote;
use ipnetwork::IpNetwork;

use crate::file;

/// What flanneld says about this node and its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubnetEnv {
    /// All pods of the cluster, host bits cleared: those of `FLANNEL_NETWORK`, then those of `FLANNEL_IPV6_NETWORK`.
    pub(crate) networks: Vec<IpNetwork>,
    /// This node's pods, host bits cleared: `FLANNEL_SUBNET`, then `FLANNEL_IPV6_SUBNET`. The families of the two are
    /// as written, not as the keys say.
    pub(crate) subnets: Vec<IpNetwork>,
    /// Bytes. `FLANNEL_MTU`.
    pub(crate) mtu: u32,
    /// Does flanneld masquerade, so that nobody else has to? `FLANNEL_IPMASQ`: `true`; any other text means no.
    pub(crate) ip_masq: bool,
}

/// Why `subnet.env` is of no use. `Display` is the inner part of the reference's sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubnetEnvError {
    /// The file cannot be opened or read.
    #[error("{operation} {path}: {}", os_text(.error))]
    Unreadable {
        operation: &'static str,
        path: String,
        error: io::Error,
    },
    /// Keys are missing.
    #[error("{path} is missing {}", .keys.join(", "))]
    Incomplete {
        path: String,
        keys: Vec<&'static str>,
    },
    /// A line cannot be understood; lines count from 1.
    #[error("{reason}")]
    Malformed {
        path: String,
        line: usize,
        reason: LineError,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error(transparent)]
    Cidr(#[from] AddressError),
    #[error("strconv.ParseUint: parsing {}: invalid syntax", quote::quoted(.0))]
    MtuSyntax(String),
    #[error("strconv.ParseUint: parsing {}: value out of range", quote::quoted(.0))]
    MtuRange(String),
    #[error("malformed line {}: no `=` after the key", quote::quoted(.0))]
    NoValue(&'static str),
    #[error("bufio.Scanner: token too long")]
    TooLong,
}

/// What is wrong with a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContentError {
    Missing(Vec<&'static str>),
    Line(usize, LineError),
}

/// A line must be shorter than this many bytes, its end not counted.
const LINE_LIMIT: usize = 64 << 10;
/// No more of the file than this many bytes is read.
const FILE_LIMIT: u64 = 1 << 20;

impl SubnetEnv {
    /// Reads the file at `path`.
    pub(crate) fn load(path: &str) -> Result<SubnetEnv, SubnetEnvError> {
        let unreadable = |operation| {
            move |error| SubnetEnvError::Unreadable {
                operation,
                path: path.to_owned(),
                error,
            }
        };
        let file = file::open(Path::new(path)).map_err(unreadable("open"))?;
        let mut content = Vec::new();
        file.take(FILE_LIMIT + 1)
            .read_to_end(&mut content)
            .map_err(unreadable("read"))?;
        if content.len() as u64 > FILE_LIMIT {
            return Err(unreadable("read")(io::Error::other(
                "file is larger than 1 MiB",
            )));
        }
        SubnetEnv::parse(&content).map_err(|error| match error {
            ContentError::Missing(keys) => SubnetEnvError::Incomplete {
                path: path.to_owned(),
                keys,
            },
            ContentError::Line(line, reason) => SubnetEnvError::Malformed {
                path: path.to_owned(),
                line,
                reason,
            },
        })
    }

    /// Reads the content of a file. A line that cannot be understood comes before keys that are missing.
    pub(crate) fn parse(content: &[u8]) -> Result<SubnetEnv, ContentError> {
        let mut found = Found::default();
        for (at, line) in content.split(|&byte| byte == b'\n').enumerate() {
            found
                .line(line)
                .map_err(|error| ContentError::Line(at + 1, error))?;
        }
        found.complete()
    }
}

/// What the lines so far have said.
#[derive(Default)]
struct Found {
    networks: Vec<IpNetwork>,
    subnet: Option<IpNetwork>,
    ipv6_networks: Vec<IpNetwork>,
    ipv6_subnet: Option<IpNetwork>,
    mtu: Option<u32>,
    ip_masq: Option<bool>,
}

const KEYS: [&str; 6] = [
    "FLANNEL_NETWORK",
    "FLANNEL_IPV6_NETWORK",
    "FLANNEL_SUBNET",
    "FLANNEL_IPV6_SUBNET",
    "FLANNEL_MTU",
    "FLANNEL_IPMASQ",
];

impl Found {
    fn line(&mut self, line: &[u8]) -> Result<(), LineError> {
        if line.len() >= LINE_LIMIT {
            return Err(LineError::TooLong);
        }
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (&*line, None),
        };
        let Some(key) = KEYS.into_iter().find(|it| *it == key) else {
            return Ok(());
        };
        let value = value.ok_or(LineError::NoValue(key))?;
        match key {
            "FLANNEL_NETWORK" => self.networks = networks(value)?,
            "FLANNEL_IPV6_NETWORK" => self.ipv6_networks = networks(value)?,
            "FLANNEL_SUBNET" => self.subnet = Some(network(value)?),
            "FLANNEL_IPV6_SUBNET" => self.ipv6_subnet = Some(network(value)?),
            "FLANNEL_MTU" => self.mtu = Some(mtu(value)?),
            _ => self.ip_masq = Some(value == "true"),
        }
        Ok(())
    }

    /// One network and one subnet, be they of different families, and the two others.
    fn complete(mut self) -> Result<SubnetEnv, ContentError> {
        self.networks.append(&mut self.ipv6_networks);
        let subnets: Vec<IpNetwork> = self.subnet.into_iter().chain(self.ipv6_subnet).collect();
        let mut missing = Vec::new();
        if self.networks.is_empty() {
            missing.extend(&KEYS[0..2]);
        }
        if subnets.is_empty() {
            missing.extend(&KEYS[2..4]);
        }
        if self.mtu.is_none() {
            missing.push(KEYS[4]);
        }
        if self.ip_masq.is_none() {
            missing.push(KEYS[5]);
        }
        match (self.mtu, self.ip_masq) {
            (Some(mtu), Some(ip_masq)) if missing.is_empty() => Ok(SubnetEnv {
                networks: self.networks,
                subnets,
                mtu,
                ip_masq,
            }),
            (_, _) => Err(ContentError::Missing(missing)),
        }
    }
}

/// Prefixes with commas between; each once, where it stands first.
fn networks(value: &str) -> Result<Vec<IpNetwork>, AddressError> {
    let mut networks = Vec::new();
    for text in value.split(',') {
        let network = network(text)?;
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

fn network(text: &str) -> Result<IpNetwork, AddressError> {
    Ok(address::masked(address::canonical(address::parse_cidr(
        text,
    )?)))
}

/// Decimal digits, nothing else: no sign, no white space.
fn mtu(text: &str) -> Result<u32, LineError> {
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(LineError::MtuSyntax(text.to_owned()));
    }
    text.parse()
        .map_err(|_| LineError::MtuRange(text.to_owned()))
}

#[cfg(test)]
mod tests;
