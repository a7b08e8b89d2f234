//! Which tools of the packet filter can be used, found out without running one where that is possible.

use std::io;

use super::iptables::Family;
use super::ruleset::{self, Ruleset};
use super::tool::{ToolError, Tools};

/// The program that the newer kind's tools are links to.
pub(super) const NEWER: &str = "xtables-nft-multi";

/// The two kinds of `iptables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its tables are nf_tables, which the kernel tells of.
    Newer,
    /// It has tables of its own, which only it can read.
    Older,
}

/// The kind of the family's tool: the older, unless it is surely of the newer.
///
/// # Errors
/// If there is none.
pub fn kind(tools: &Tools, family: Family) -> Result<Kind, ToolError> {
    let program = tools.find(&format!("{}-restore", family.tool()))?;
    let program = program.canonicalize().unwrap_or(program);
    Ok(match program.file_name() {
        Some(name) if name == NEWER => Kind::Newer,
        Some(_) | None => Kind::Older,
    })
}

/// Can the family's `iptables` be used? Of the newer kind the kernel is asked; the older is run, unless its tables are
/// in use already.
///
/// # Errors
/// Why it cannot.
pub fn check_iptables(tools: &Tools, family: Family) -> Result<(), ToolError> {
    if kind(tools, family)? == Kind::Newer {
        return check_kernel(family);
    }
    if ruleset::legacy_tables(family).is_some_and(|tables| !tables.is_empty()) {
        return Ok(());
    }
    let wait = format!("--wait={}", tools.limits().lock_seconds);
    let listed = tools.run(family.tool(), &[&wait, "-t", "filter", "-S", "INPUT", "1"])?;
    match listed.code() {
        Some(0 | 1) => Ok(()), // 1: there is no such rule
        Some(_) | None => listed.success().map(drop),
    }
}

/// Can `nft` be used?
///
/// # Errors
/// Why it cannot.
pub fn check_nft(tools: &Tools) -> Result<(), ToolError> {
    tools.find("nft")?;
    check_kernel(Family::Ipv4)
}

/// Has the kernel nf_tables?
fn check_kernel(family: Family) -> Result<(), ToolError> {
    let there = match Ruleset::open().map_err(ToolError::Ruleset)? {
        Some(ruleset) => ruleset.is_there(family.into()),
        None => Ok(false),
    };
    match there {
        Ok(true) => Ok(()),
        Ok(false) => Err(ToolError::Ruleset(io::Error::other(
            "the kernel has no nf_tables",
        ))),
        Err(error) => Err(ToolError::Ruleset(error)),
    }
}
