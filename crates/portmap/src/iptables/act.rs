//! ADD: one `iptables-restore` a family, both at once, and all undone if one fails.

use std::time::Instant;

use cni_net::firewall::iptables::{self, Change, Family, Lock, Presence};
use cni_net::firewall::tool::{Job, Output, ToolError, Tools};
use cni_net::firewall::usable::{self, Kind};
use ipnetwork::IpNetwork;

use super::glance::Glance;
use super::{Own, Owner, Shared, attach, detach, present, restore};
use crate::config::Config;
use crate::error::Error;

/// The rules of an attachment. Dropped before they are kept, they go, and what was there before comes back.
#[must_use = "dropping this undoes what was done"]
struct Installed<'a> {
    tools: &'a Tools,
    chain: String,
    /// What the container had in a family that has been begun.
    undo: Vec<(Family, Option<Own>)>,
}

impl Installed<'_> {
    fn keep(mut self) {
        self.undo.clear();
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        for (family, before) in self.undo.drain(..) {
            if before.is_none()
                && iptables::presence(self.tools, family, &self.chain) == Presence::Absent
            {
                continue;
            }
            // If this fails too, the runtime still calls DEL.
            let _ = iptables::reconcile(self.tools, family, None, |saved| {
                restore(saved, &self.chain, before.as_ref())
            });
        }
    }
}

/// Installs the rules of a container with these addresses, one of each family at most. In a family without address,
/// rules of an earlier ADD go. If that fails, what was there before comes back. What is done goes to `trace`, a line a
/// command.
pub(crate) fn install(
    tools: &Tools,
    owner: &Owner<'_>,
    config: &Config,
    addresses: &[IpNetwork],
    trace: &mut Vec<String>,
) -> Result<(), Error> {
    let shared = Shared::of(config);
    let address_of = |family| addresses.iter().find(|it| Family::of(it) == family);
    let parts = Family::ALL.map(|family| Part {
        family,
        own: address_of(family).map(|address| Own::new(owner, config, *address)),
    });
    let chain = owner.chain();
    let mut installed = Installed {
        tools,
        chain,
        undo: Vec::new(),
    };
    installed.run(&parts, &shared, trace)?;
    installed.keep();
    Ok(())
}

/// A family's part of ADD.
struct Part {
    family: Family,
    /// `None` if the container has no such address.
    own: Option<Own>,
}

/// How a part is done.
enum Course {
    Nothing,
    /// What the kernel tells is enough to know what is to be changed.
    Direct {
        changes: Vec<Change>,
        shared: bool,
    },
    /// The table has to be read first.
    ByReading,
}

impl Course {
    /// Two containers that add the same would both add it.
    fn needs_lock(&self) -> bool {
        match self {
            // What is read is read under a lock of its own.
            Course::Nothing | Course::ByReading => false,
            Course::Direct { shared, .. } => *shared,
        }
    }
}

impl Installed<'_> {
    fn run(
        &mut self,
        parts: &[Part],
        shared: &Shared,
        trace: &mut Vec<String>,
    ) -> Result<(), Error> {
        let mut courses = self.courses(parts, shared)?;
        let mut lock = None;
        if courses.iter().any(Course::needs_lock) {
            lock = Some(self.lock()?);
            // While we waited, others may have done it.
            courses = self.courses(parts, shared)?;
        }
        let (mut jobs, mut unread) = (Vec::new(), Vec::new());
        for (part, course) in parts.iter().zip(courses) {
            match course {
                Course::Nothing => {}
                Course::Direct { changes, .. } => {
                    trace.extend(commands(part.family, &changes));
                    let job = self.start(part.family, &changes, lock.as_ref())?;
                    jobs.push((part, job, Instant::now()));
                }
                Course::ByReading => unread.push(part),
            }
        }
        let mut failed = None;
        for (part, job, start) in jobs {
            let outcome = job.finish().and_then(Output::success);
            trace.push(format!("# {}: {:.1?}", part.family.tool(), start.elapsed()));
            match outcome {
                Ok(_) => {}
                // Somebody else has changed the table: what is there now?
                Err(error) if error.is_refusal() => unread.push(part),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(Error::Iptables(error));
        }
        drop(lock); // what follows takes it again where it is needed
        for part in unread {
            self.install_by_reading(part, shared, trace)?;
        }
        Ok(())
    }

    fn courses(&self, parts: &[Part], shared: &Shared) -> Result<Vec<Course>, Error> {
        parts.iter().map(|part| self.course(part, shared)).collect()
    }

    fn course(&self, part: &Part, shared: &Shared) -> Result<Course, Error> {
        let Some(own) = &part.own else {
            return Ok(
                match iptables::presence(self.tools, part.family, &self.chain) {
                    Presence::Present => Course::ByReading,
                    Presence::Absent | Presence::Unknown => Course::Nothing,
                },
            );
        };
        let kind = usable::kind(self.tools, part.family)
            .map_err(|error| tool_error(part.family, error))?;
        if kind == Kind::Older {
            return Ok(Course::ByReading);
        }
        let glance = Glance::read(part.family, shared, own).map_err(Error::Ruleset)?;
        Ok(match glance.saved(shared, own) {
            Some(saved) => Course::Direct {
                changes: attach(&saved, shared, own),
                shared: !shared.missing(&saved).is_empty(),
            },
            None => Course::ByReading,
        })
    }

    fn start(
        &mut self,
        family: Family,
        changes: &[Change],
        lock: Option<&Lock>,
    ) -> Result<Job, Error> {
        self.undo.push((family, None));
        iptables::start(self.tools, family, changes, lock)
            .map_err(|error| tool_error(family, error))
    }

    fn install_by_reading(
        &mut self,
        part: &Part,
        shared: &Shared,
        trace: &mut Vec<String>,
    ) -> Result<(), Error> {
        let (family, chain) = (part.family, &self.chain);
        let undo = &mut self.undo;
        let mut first = true;
        let done = iptables::reconcile(self.tools, family, None, |saved| {
            if std::mem::take(&mut first) {
                undo.retain(|(begun, _)| *begun != family);
                undo.push((family, present(saved, chain)));
            }
            let changes = match &part.own {
                Some(own) => attach(saved, shared, own),
                None => detach(saved, &[chain]),
            };
            trace.extend(commands(family, &changes));
            changes
        });
        done.map_err(|error| tool_error(family, error))
    }

    fn lock(&self) -> Result<Lock, Error> {
        Lock::take(self.tools).map_err(Error::Iptables)
    }
}

/// Changes as the commands they equal.
pub(super) fn commands(family: Family, changes: &[Change]) -> impl Iterator<Item = String> {
    changes
        .iter()
        .map(move |change| format!("{} -t nat {change}", family.tool()))
}

fn tool_error(family: Family, error: ToolError) -> Error {
    if error.is_not_found() {
        Error::NoIptables { family, error }
    } else {
        Error::Iptables(error)
    }
}
