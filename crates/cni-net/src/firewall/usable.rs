//! Which tools of the packet filter can be used, found out without running one where that is possible.

use std::io;

use super::iptables::{self, Family, NEWER};
use super::ruleset::{self, Ruleset};
use super::tool::{ToolError, Tools};

/// The two kinds of `iptables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its tables are nf_tables, which the kernel tells of.
    Newer,
    /// It has tables of its own, which only it can read.
    Older,
}

/// The kind of the family's tool.
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
        return check_kernel();
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
    check_kernel()
}

/// Has the kernel nf_tables?
fn check_kernel() -> Result<(), ToolError> {
    let missing = || io::Error::other("the kernel has no nf_tables");
    match Ruleset::open() {
        Ok(Some(ruleset)) => ruleset
            .has_table(iptables::Family::Ipv4.into(), "nat")
            .map(drop)
            .map_err(ToolError::Ruleset),
        Ok(None) => Err(ToolError::Ruleset(missing())),
        Err(error) => Err(ToolError::Ruleset(error)),
    }
}
