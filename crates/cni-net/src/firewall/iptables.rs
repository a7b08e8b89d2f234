//! `iptables`: all changes of a family in one `iptables-restore --noflush`, which does them as a whole or not at all.
//!
//! Works with both kinds: the newer, whose tables are in the kernel's nf_tables, and the older with tables of its own.
//! Only the table `nat` is concerned.

use std::fmt::{self, Write};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::ruleset::{self, Ruleset};
use super::tool::{Job, ToolError, Tools};
use super::usable::{self, Kind};

/// The table that all is about.
pub const TABLE: &str = "nat";

/// How often a change is begun again because somebody else's came first.
const ATTEMPTS: usize = 10;

/// A family of addresses; each has tables and tools of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `iptables`
    Ipv4,
    /// `ip6tables`
    Ipv6,
}

/// A rule as `iptables` takes it: `-A CHAIN WORDS…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The chain that the rule is in.
    pub chain: String,
    /// Matches and target; each word once it is freed from quotes.
    pub words: Vec<String>,
}

/// A change of the table `nat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes a chain; refused if it is there.
    NewChain(String),
    /// Removes the rules of a chain; refused if it is not there.
    FlushChain(String),
    /// Deletes a chain; refused if it is not there, has rules or is jumped to.
    DeleteChain(String),
    /// Puts a rule at the end of its chain.
    Append(Rule),
    /// Puts a rule at the start of its chain.
    Insert(Rule),
    /// Deletes the first such rule; refused if there is none.
    Delete(Rule),
}

/// The table `nat` as `iptables-save` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// All chains, the kernel's included.
    pub chains: Vec<String>,
    /// All rules, chain by chain, each chain's in order.
    pub rules: Vec<Rule>,
}

/// Whether a chain is there, as far as the kernel can tell without a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not.
    Absent,
    /// It is.
    Present,
    /// The table is one of the older `iptables`, which alone can tell.
    Unknown,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The address's.
    pub fn of(address: &IpNetwork) -> Family {
        if address.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }

    /// The tool's name.
    pub fn tool(self) -> &'static str {
        match self {
            Family::Ipv4 => "iptables",
            Family::Ipv6 => "ip6tables",
        }
    }

    fn restore(self) -> &'static str {
        match self {
            Family::Ipv4 => "iptables-restore",
            Family::Ipv6 => "ip6tables-restore",
        }
    }

    fn save(self) -> &'static str {
        match self {
            Family::Ipv4 => "iptables-save",
            Family::Ipv6 => "ip6tables-save",
        }
    }
}

impl Rule {
    /// A rule of these words.
    pub fn new<W: Into<String>>(
        chain: impl Into<String>,
        words: impl IntoIterator<Item = W>,
    ) -> Rule {
        Rule {
            chain: chain.into(),
            words: words.into_iter().map(W::into).collect(),
        }
    }

    /// The word behind an option, such as `-j`; `None` if it is not there or negated.
    pub fn value(&self, option: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == option)?;
        let negated = at > 0 && self.words[at - 1] == "!";
        if negated {
            None
        } else {
            self.words.get(at + 1).map(String::as_str)
        }
    }
}

/// Is the family's tool there?
pub fn is_there(tools: &Tools, family: Family) -> bool {
    tools.find(family.restore()).is_ok()
}

/// The right to add to the newer kind's tables what others may be adding too.
///
/// The older `iptables` lets one process at a time read and change its tables. The newer has no lock: it does its change
/// again on top of that of a process which came first, and then empties a chain that it was to make, and repeats a rule
/// that is there now (1.8.9, `nft_refresh_transaction`). So we take the older kind's lock for it.
///
/// An older tool takes it by itself, so one that is waited for must find it free: see [`locks_by_itself`].
#[derive(Debug)]
pub struct Lock(Option<File>);

impl Lock {
    /// The lock; `None` if somebody else has it.
    pub fn try_take(tools: &Tools) -> Option<Lock> {
        let Some(file) = Lock::open(tools) else {
            return Some(Lock(None));
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Ok(()) | Err(TryLockError::Error(_)) => Some(Lock(Some(file))),
        }
    }

    /// The lock, waited for within the limit.
    ///
    /// # Errors
    /// If others have it all that time.
    pub fn take(tools: &Tools) -> Result<Lock, ToolError> {
        let Some(file) = Lock::open(tools) else {
            return Ok(Lock(None));
        };
        if file.try_lock().is_ok() {
            return Ok(Lock(Some(file)));
        }
        let seconds = tools.limits().lock_seconds;
        let (sender, receiver) = mpsc::channel();
        // flock(2) knows no limit. Should the lock come too late, it goes back with the file that nobody receives.
        let waiting = thread::Builder::new().spawn(move || {
            let _ = file.lock();
            let _ = sender.send(file);
        });
        let file = waiting
            .ok()
            .and_then(|_| receiver.recv_timeout(Duration::from_secs(seconds)).ok());
        let late = || ToolError::Locked {
            file: tools.lock_file().to_owned(),
            seconds,
        };
        file.map(|file| Lock(Some(file))).ok_or_else(late)
    }

    /// The file; `None` if there is no place for one.
    fn open(tools: &Tools) -> Option<File> {
        let file = tools.lock_file();
        File::open(file)
            .or_else(|_| {
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(file)?;
                File::open(file)
            })
            .ok()
    }
}

/// Starts making all changes, in order, as one. The lock, if given, is held until the tool has ended, also if it is
/// dropped before; a tool that [`locks_by_itself`] does not get it, and works once it is free.
pub fn start(
    tools: &Tools,
    family: Family,
    changes: &[Change],
    lock: Option<&Lock>,
) -> Result<Job, ToolError> {
    let wait = format!("--wait={}", tools.limits().lock_seconds);
    // The lock lives as long as an open file does: so the tool gets it, for the output that it never makes.
    let held = lock
        .filter(|_| !locks_by_itself(tools, family))
        .and_then(|lock| lock.0.as_ref()?.try_clone().ok());
    let stdout = held.map_or_else(Stdio::piped, Stdio::from);
    tools.start_with(
        family.restore(),
        &["--noflush", &wait],
        script(changes).into_bytes(),
        stdout,
    )
}

/// Starts reading the table; [`Saved::of`] understands the output.
pub fn start_reading(tools: &Tools, family: Family) -> Result<Job, ToolError> {
    tools.start(family.save(), &["-t", TABLE], "")
}

/// Reads the table, lets `plan` compute what is to be changed, and changes it. If the change is refused, somebody who
/// does not mind the lock may have come in between: then all begins again.
///
/// The lock is taken here if the family's tool needs it, so the caller must not have it.
///
/// With a `guess` of what is there, as far as `plan` looks at it, nothing is read unless the change is refused.
///
/// # Errors
/// What the tool says if it refuses a change although nobody else has changed anything.
pub fn reconcile(
    tools: &Tools,
    family: Family,
    guess: Option<Saved>,
    mut plan: impl FnMut(&Saved) -> Vec<Change>,
) -> Result<(), ToolError> {
    let lock = match locks_by_itself(tools, family) {
        true => None,
        false => Some(Lock::take(tools)?),
    };
    let read = || Saved::of(start_reading(tools, family)?);
    let mut saved = guess.map_or_else(read, Ok)?;
    for attempt in 1.. {
        let changes = plan(&saved);
        if changes.is_empty() {
            return Ok(());
        }
        let outcome = start(tools, family, &changes, lock.as_ref())?
            .finish()?
            .success();
        let Err(error) = outcome else { return Ok(()) };
        if !error.is_refusal() || attempt == ATTEMPTS {
            return Err(error);
        }
        let now = read()?;
        if now == saved {
            return Err(error);
        }
        saved = now;
    }
    Ok(())
}

/// Is there a chain of that name? Asks the kernel, not a tool.
pub fn presence(tools: &Tools, family: Family, chain: &str) -> Presence {
    let newer = Ruleset::open().and_then(|ruleset| match ruleset {
        Some(ruleset) => ruleset.has_chain(family.into(), TABLE, chain),
        None => Ok(false),
    });
    match newer {
        Ok(true) => Presence::Present,
        Ok(false) if !older_may_have_rules(tools, family) => Presence::Absent,
        Ok(false) | Err(_) => Presence::Unknown,
    }
}

/// Might there be rules that only the tool can tell of? So if the tool is, or may be, of the older kind, and its table
/// was used in this namespace. Asks the kernel, not a tool.
pub fn older_may_have_rules(tools: &Tools, family: Family) -> bool {
    let was_used =
        || ruleset::legacy_tables(family).is_none_or(|tables| tables.iter().any(|it| it == TABLE));
    locks_by_itself(tools, family) && was_used()
}

/// Does the family's tool take the [`Lock`] itself? So the older kind, and who knows what else.
pub fn locks_by_itself(tools: &Tools, family: Family) -> bool {
    !matches!(usable::kind(tools, family), Ok(Kind::Newer))
}

/// What `iptables-restore` reads.
fn script(changes: &[Change]) -> String {
    let mut script = format!("*{TABLE}\n");
    for change in changes {
        let _ = writeln!(script, "{change}");
    }
    script.push_str("COMMIT\n");
    script
}

/// The arguments of the command that the change equals: `-A POSTROUTING -s 10.1.0.2 -j CNI-x`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::NewChain(chain) => write!(f, "-N {}", Word(chain)),
            Change::FlushChain(chain) => write!(f, "-F {}", Word(chain)),
            Change::DeleteChain(chain) => write!(f, "-X {}", Word(chain)),
            Change::Append(rule) => write!(f, "-A {rule}"),
            Change::Insert(rule) => write!(f, "-I {rule}"),
            Change::Delete(rule) => write!(f, "-D {rule}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Word(&self.chain))?;
        self.words
            .iter()
            .try_for_each(|word| write!(f, " {}", Word(word)))
    }
}

/// A word as `iptables-restore`, and a shell, take it: in quotes if need be.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:,!=+@%".contains(letter);
        if !self.0.is_empty() && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for letter in self.0.chars() {
            match letter {
                '"' | '\\' => write!(f, "\\{letter}")?,
                // A line is a command: a word cannot reach over its end.
                '\n' | '\0' => f.write_char(' ')?,
                letter => f.write_char(letter)?,
            }
        }
        f.write_char('"')
    }
}

impl Saved {
    /// What the tool that [`start_reading`] started has to tell.
    pub fn of(job: Job) -> Result<Saved, ToolError> {
        Ok(Saved::parse(&job.finish()?.success()?.stdout()))
    }

    /// The chains and rules in the output of `iptables-save -t nat`.
    pub fn parse(text: &str) -> Saved {
        let mut saved = Saved::default();
        for line in text.lines() {
            let mut words = words(line).into_iter();
            match words.next() {
                Some(first) if first == "-A" => {
                    if let Some(chain) = words.next() {
                        saved.rules.push(Rule {
                            chain,
                            words: words.collect(),
                        });
                    }
                }
                Some(first) => saved
                    .chains
                    .extend(first.strip_prefix(':').map(str::to_owned)),
                None => {}
            }
        }
        saved
    }

    /// Is there such a chain?
    pub fn has_chain(&self, chain: &str) -> bool {
        self.chains.iter().any(|it| it == chain)
    }

    /// The rules of a chain, in order.
    pub fn rules_of(&self, chain: &str) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.chain == chain)
    }

    /// The rules that lead to a chain.
    pub fn jumps_to(&self, chain: &str) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(move |rule| rule.value("-j") == Some(chain))
    }
}

/// The words of a line, freed from quotes and backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(letters.next()),
            ' ' | '\t' if !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9 (nf_tables)
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-x - [0:0]
-A POSTROUTING -s 10.1.2.3/32 -m comment --comment c -j CNI-x
-A CNI-x -d 10.1.2.0/24 -m comment --comment "name: \"n\" id: \"i\"" -j ACCEPT
-A CNI-x ! -d 224.0.0.0/4 -m comment --comment "" -j MASQUERADE
COMMIT
"#;

    #[test]
    fn a_saved_table_is_understood() {
        let saved = Saved::parse(SAVED);
        assert_eq!(saved.chains, ["PREROUTING", "POSTROUTING", "CNI-x"]);
        assert_eq!(saved.jumps_to("CNI-x").count(), 1);
        let rules: Vec<&Rule> = saved.rules_of("CNI-x").collect();
        assert_eq!(rules[0].value("--comment"), Some(r#"name: "n" id: "i""#));
        assert_eq!(rules[0].value("-d"), Some("10.1.2.0/24"));
        assert_eq!(rules[1].value("-d"), None, "it is negated");
        assert_eq!(rules[1].value("--comment"), Some(""));
    }

    #[test]
    fn what_is_saved_prints_as_it_was() {
        let printed: Vec<String> = Saved::parse(SAVED)
            .rules
            .into_iter()
            .map(|rule| format!("-A {rule}"))
            .collect();
        let lines: Vec<&str> = SAVED
            .lines()
            .filter(|line| line.starts_with("-A"))
            .collect();
        assert_eq!(printed, lines);
    }

    #[test]
    fn no_word_leaves_its_line() {
        let rule = Rule::new("C", ["a b", "a\nCOMMIT", "\"\\", ""]);
        assert_eq!(
            Change::Append(rule).to_string(),
            r#"-A C "a b" "a COMMIT" "\"\\" """#
        );
        assert_eq!(
            words(r#"-A C "a b" "a COMMIT" "\"\\" """#),
            ["-A", "C", "a b", "a COMMIT", "\"\\", ""]
        );
    }
}
