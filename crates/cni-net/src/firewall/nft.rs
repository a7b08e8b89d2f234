//! `nft`: a change is one transaction, so it happens as a whole or not at all.

use std::fmt;
use std::io;

use super::tool::{Job, ToolError, Tools};

const NFT: &str = "nft";

/// How often a change is begun again because somebody else's came first.
const ATTEMPTS: usize = 10;

/// What one run of `nft` changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// Lines as `nft` takes them: `add rule inet filter input accept`.
    Statements(Vec<String>),
    /// A document in `nft`'s JSON, whose strings may hold anything (libnftables-json(5)).
    Document(String),
}

/// A transaction on its way.
#[must_use = "dropping this kills the tool"]
pub struct Running {
    transaction: Transaction,
    job: Job,
}

/// Is the tool there? Whether it works shows when it is used.
pub fn is_there(tools: &Tools) -> bool {
    tools.find(NFT).is_ok()
}

/// Starts a transaction.
pub fn start(tools: &Tools, transaction: Transaction) -> Result<Running, ToolError> {
    let arguments: &[&str] = match &transaction {
        Transaction::Statements(_) => &["-f", "-"],
        // For JSON nft opens its standard input by name, and takes /dev/stdin for `-`, which a small /dev may not have.
        Transaction::Document(_) => &["-j", "-f", "/proc/self/fd/0"],
    };
    let job = tools.start(NFT, arguments, transaction.to_string())?;
    Ok(Running { transaction, job })
}

impl Running {
    /// Waits for the end. If the transaction was refused, `plan` computes what is to be changed now: `None` if that is
    /// nothing any more. If it is something else than before, somebody came in between, and it is done instead.
    ///
    /// # Errors
    /// What the tool says if it refuses a change although nobody else has changed anything.
    pub fn finish(
        self,
        tools: &Tools,
        mut plan: impl FnMut() -> io::Result<Option<Transaction>>,
    ) -> Result<(), ToolError> {
        let mut running = self;
        for attempt in 1.. {
            let Err(error) = running.job.finish()?.success() else {
                break;
            };
            if !error.is_refusal() || attempt == ATTEMPTS {
                return Err(error);
            }
            match plan().map_err(ToolError::Ruleset)? {
                None => break,
                Some(now) if now == running.transaction => return Err(error),
                Some(now) => running = start(tools, now)?,
            }
        }
        Ok(())
    }
}

/// What `nft` reads.
impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transaction::Statements(lines) => {
                lines.iter().try_for_each(|line| writeln!(f, "{line}"))
            }
            Transaction::Document(text) => f.write_str(text),
        }
    }
}
