//! How each step is done. Requests of one namespace keep their order, so those that follow one another are sent at
//! once; only what the next step depends on, or what is no netlink request, is done by itself.

use std::fmt::{self, Write};
use std::mem;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_route::AddressFamily;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::connection::{AT_ONCE, Group, Request};
use crate::link::OperState;
use crate::net::Net;
use crate::step::{At, Step};
use crate::{KernelError, sysctl};

/// A plan that failed is shown so far beyond the failed step: a trunk or a list of routes may have thousands.
const AFTER_FAILURE: usize = 20;
/// How long a link may take to work.
const UP_LIMIT: Duration = Duration::from_millis(2550);
/// How long duplicate address detection may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// The steps done so far. What is the attachment's own is undone when this is dropped, unless it is kept.
#[must_use = "dropping this undoes what was done"]
pub struct Applied<'a> {
    net: &'a Net,
    undo: Vec<Step>,
    trace: Vec<(String, Duration)>,
}

/// A step that could not be done.
#[derive(Debug)]
pub struct StepError {
    /// The step.
    pub step: Box<Step>,
    /// Why.
    pub reason: Reason,
    /// The plan, a line a step with the time it took, and the failed step marked.
    pub trace: String,
}

/// Why a step could not be done. `Display` is the reference's wording of the cause.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The link did not start to work in time.
    #[error("bridge port in error state: {}", .0.0)]
    NotUp(OperState),
    /// Another host has the address.
    #[error("link {link} has address {address} in DADFAILED state")]
    DuplicateAddress {
        /// The link.
        link: String,
        /// The address.
        address: IpAddr,
    },
    /// Duplicate address detection did not end in time.
    #[error("link {0} still has tentative addresses after 5000000000 seconds")]
    StillTentative(String),
}

impl StepError {
    /// The kernel's own sentence about the refusal, where it gave one.
    pub fn explanation(&self) -> Option<&str> {
        match &self.reason {
            Reason::Kernel(error) => error.explanation.as_deref(),
            Reason::NotUp(_) | Reason::DuplicateAddress { .. } | Reason::StillTentative(_) => None,
        }
    }

    /// Did the kernel refuse with this error number?
    pub fn is(&self, errno: Errno) -> bool {
        matches!(&self.reason, Reason::Kernel(error) if error.is(errno))
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed", self.step)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl Applied<'_> {
    /// Does more steps, which are undone together with the ones before.
    pub fn extend(&mut self, plan: &[Step]) -> Result<(), StepError> {
        let start = self.trace.len();
        match self.net.run(plan, &mut self.undo, &mut self.trace) {
            Ok(()) => Ok(()),
            Err((at, reason)) => {
                let mut trace = lines(&self.trace[..start]);
                // What was sent before the answer to the failed step came may have been done.
                let sent = self.trace.len() - start;
                for (position, step) in plan.iter().enumerate() {
                    let mark = match position.cmp(&at) {
                        std::cmp::Ordering::Less => "done    ",
                        std::cmp::Ordering::Equal => "FAILED  ",
                        std::cmp::Ordering::Greater if position < sent => "sent    ",
                        std::cmp::Ordering::Greater => "not done",
                    };
                    if position > at + AFTER_FAILURE {
                        let _ = writeln!(trace, "and {} more", plan.len() - position);
                        break;
                    }
                    let _ = write!(trace, "{mark} {step}");
                    if position == at {
                        let _ = write!(trace, ": {reason}");
                    }
                    trace.push('\n');
                }
                Err(StepError {
                    step: Box::new(plan[at].clone()),
                    reason,
                    trace,
                })
            }
        }
    }

    /// The steps and how long each took, a line each.
    pub fn trace(&self) -> String {
        lines(&self.trace)
    }

    /// All is well: nothing will be undone.
    pub fn keep(mut self) {
        self.undo.clear();
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.undo.pop() {
            // The error that brought us here is the one to report; the runtime's DEL tries again.
            let _ = self.net.run(&[step], &mut Vec::new(), &mut Vec::new());
        }
    }
}

fn lines(trace: &[(String, Duration)]) -> String {
    trace.iter().fold(String::new(), |mut text, (step, time)| {
        let _ = writeln!(text, "{:>7} µs {step}", time.as_micros());
        text
    })
}

impl Net {
    /// Does the steps in their order.
    ///
    /// # Errors
    /// The first step that could not be done; what was done is undone before this returns.
    pub fn apply(&self, plan: &[Step]) -> Result<Applied<'_>, StepError> {
        let mut applied = Applied {
            net: self,
            undo: Vec::new(),
            trace: Vec::new(),
        };
        applied.extend(plan)?;
        Ok(applied)
    }

    /// Runs the steps; on an error the position of the failed one.
    fn run(
        &self,
        plan: &[Step],
        undo: &mut Vec<Step>,
        trace: &mut Vec<(String, Duration)>,
    ) -> Result<(), (usize, Reason)> {
        let mut batch = Batch::default();
        let mut position = 0;
        while let Some(step) = plan.get(position) {
            let failed = |reason: Reason| (position, reason);
            if batch.at != Some(step.at()) || must_be_alone(step) {
                self.send(plan, mem::take(&mut batch), trace)?;
            }
            let start = Instant::now();
            let mut done = 1;
            match step {
                Step::Sysctl { at, .. } => {
                    let is_alike =
                        |it: &&Step| matches!(it, Step::Sysctl { at: its, .. } if its == at);
                    done = plan[position..].iter().take_while(is_alike).count();
                    let steps = &plan[position..position + done];
                    let outcome = match at {
                        At::Host => set_parameters(steps),
                        At::Container => {
                            // What comes next needs the link's index, which costs least to ask for while we are there.
                            let next = plan.get(position + done).filter(|it| it.at() == *at);
                            let next = next.and_then(Step::link);
                            let visit = || Ok((set_parameters(steps), next.map(if_nametoindex)));
                            let (outcome, index) = self
                                .inside(visit)
                                .map_err(|error| failed(KernelError::from(error).into()))?;
                            if let (Some(link), Some(Ok(index))) = (next, index) {
                                self.note_index(*at, link, index);
                            }
                            outcome
                        }
                    };
                    outcome.map_err(|(at, error)| (position + at, error.into()))?;
                }
                Step::AwaitUp { link, bridge, peer } => self
                    .await_up(link, bridge, peer.as_deref())
                    .map_err(failed)?,
                Step::AwaitAddresses { link } => self.await_addresses(link).map_err(failed)?,
                Step::AddBridge { .. } | Step::AddVeth(_) | Step::DelLink { .. } => {
                    let request = self.request(step).map_err(|error| failed(error.into()))?;
                    let answer = self.ask(step.at(), request);
                    accept(step, answer).map_err(|error| failed(error.into()))?;
                    undo.extend(step.undo());
                    if let Step::DelLink { at, link } = step {
                        self.forget(*at, link);
                    }
                }
                Step::SetUp { .. }
                | Step::SetDown { .. }
                | Step::SetPromiscuous { .. }
                | Step::SetMac { .. }
                | Step::SetBridgePort { .. }
                | Step::AddVlan { .. }
                | Step::DelVlan { .. }
                | Step::AddAddress { .. }
                | Step::DelAddress { .. }
                | Step::AddRoute { .. }
                | Step::SetArpNotify { .. } => match self.request(step) {
                    Ok(request) => {
                        if batch.at.is_none() {
                            (batch.at, batch.first) = (Some(step.at()), position);
                        }
                        batch.requests.push(request);
                        position += 1;
                        continue;
                    }
                    Err(error) => {
                        self.send(plan, batch, trace)?;
                        return Err(failed(error.into()));
                    }
                },
            }
            note(trace, &plan[position..position + done], start.elapsed());
            position += done;
        }
        self.send(plan, batch, trace)
    }

    /// Sends the requests that were put off, some at once. An error is that of the first that was refused; what comes
    /// behind those that were sent with it is not sent any more.
    fn send(
        &self,
        plan: &[Step],
        batch: Batch,
        trace: &mut Vec<(String, Duration)>,
    ) -> Result<(), (usize, Reason)> {
        let Some(at) = batch.at else { return Ok(()) };
        let mut first = batch.first;
        for requests in batch.requests.chunks(AT_ONCE) {
            let start = Instant::now();
            let steps = &plan[first..first + requests.len()];
            let answers = self
                .connection(at)
                .map_err(KernelError::from)
                .and_then(|connection| connection.exchange(requests));
            note(trace, steps, start.elapsed());
            let answers = answers.map_err(|error| (first, error.into()))?;
            for (at, (step, answer)) in steps.iter().zip(answers).enumerate() {
                accept(step, answer.map(drop)).map_err(|error| (first + at, error.into()))?;
            }
            first += requests.len();
        }
        Ok(())
    }

    fn ask(&self, at: At, request: Request) -> Result<(), KernelError> {
        self.connection(at)?.ask(request).map(drop)
    }

    fn await_up(&self, link: &str, bridge: &str, peer: Option<&str>) -> Result<(), Reason> {
        let mut last = OperState("not-present");
        let up = self.until(At::Host, Group::Links, UP_LIMIT, || {
            let [link, _] = self.links(At::Host, [link, bridge])?;
            last = link.map_or(OperState("not-present"), |link| link.operstate);
            Ok((last == OperState::UP).then_some(()))
        })?;
        up.ok_or(Reason::NotUp(last))?;
        let Some(peer) = peer else { return Ok(()) };
        // The kernel has them work one after the other, and drops what the other one sends until then.
        let up = self.until(At::Container, Group::Links, UP_LIMIT, || {
            let link = self.link(At::Container, peer)?;
            last = link.map_or(OperState("not-present"), |link| link.operstate);
            Ok((last == OperState::UP).then_some(()))
        })?;
        up.ok_or(Reason::NotUp(last))
    }

    fn await_addresses(&self, link: &str) -> Result<(), Reason> {
        let index = self.index(At::Container, link)?;
        let settled = self.until(At::Container, Group::Ipv6Addresses, SETTLE_LIMIT, || {
            let addresses = self.addresses_of(At::Container, index, AddressFamily::Inet6)?;
            if let Some(failed) = addresses.iter().find(|it| it.dad_failed) {
                return Ok(Some(Err(failed.address.ip())));
            }
            Ok(addresses.iter().all(|it| !it.tentative).then_some(Ok(())))
        })?;
        match settled {
            Some(Ok(())) => Ok(()),
            Some(Err(address)) => Err(Reason::DuplicateAddress {
                link: link.to_owned(),
                address,
            }),
            None => {
                let state = self.link(At::Container, link)?.map(|link| link.operstate);
                if state == Some(OperState::UP) {
                    Err(Reason::StillTentative(link.to_owned()))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Requests that are put off to be sent together: of one namespace, and of steps that follow one another.
#[derive(Default)]
struct Batch {
    at: Option<At>,
    /// The position of the first step.
    first: usize,
    requests: Vec<Request>,
}

/// Is the step no request, or does what follows depend on its outcome?
fn must_be_alone(step: &Step) -> bool {
    matches!(
        step,
        Step::Sysctl { .. }
            | Step::AwaitUp { .. }
            | Step::AwaitAddresses { .. }
            | Step::AddBridge { .. }
            | Step::AddVeth(_)
            | Step::DelLink { .. }
    )
}

/// Notes steps that were done together, each with its part of the time.
fn note(trace: &mut Vec<(String, Duration)>, steps: &[Step], time: Duration) {
    let each = time / steps.len().max(1) as u32;
    trace.extend(steps.iter().map(|step| (step.to_string(), each)));
}

/// Sets parameters in the calling thread's namespace; the position of the first required one that cannot be set.
fn set_parameters(steps: &[Step]) -> Result<(), (usize, KernelError)> {
    for (position, step) in steps.iter().enumerate() {
        let Step::Sysctl {
            name,
            value,
            required,
            ..
        } = step
        else {
            continue;
        };
        let done = if *required {
            sysctl::ensure(name, value)
        } else {
            sysctl::write(name, value)
        };
        match done {
            Err(error) if *required => return Err((position, error.into())),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// "Already there" and "already gone" are success where the step says so.
fn accept(step: &Step, outcome: Result<(), KernelError>) -> Result<(), KernelError> {
    let Err(error) = outcome else { return Ok(()) };
    let fine = match step {
        Step::AddBridge { .. } | Step::AddAddress { at: At::Host, .. } => error.is(Errno::EEXIST),
        Step::AddVeth(veth) if veth.peer_at == At::Host => error.is(Errno::EEXIST),
        Step::DelLink { .. } => error.is(Errno::ENODEV),
        Step::DelAddress { .. } => error.is(Errno::EADDRNOTAVAIL),
        Step::DelVlan { .. } => error.is(Errno::ENOENT),
        Step::AddVeth(_)
        | Step::SetUp { .. }
        | Step::SetDown { .. }
        | Step::SetPromiscuous { .. }
        | Step::SetMac { .. }
        | Step::SetBridgePort { .. }
        | Step::AddVlan { .. }
        | Step::AddAddress {
            at: At::Container, ..
        }
        | Step::AddRoute { .. }
        | Step::Sysctl { .. }
        | Step::AwaitUp { .. }
        | Step::AwaitAddresses { .. } => false,
        // As the reference, which does without where the parameter cannot be set.
        Step::SetArpNotify { .. } => true,
    };
    if fine { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests;
