//! One call under ptrace(2): how many processes it starts, and how much memory its plugins use.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Failure;
use crate::call::{Call, outputs};

/// What a call was seen to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traced {
    /// Processes, the called one included.
    pub(crate) processes: u32,
    /// Threads beyond the first of each process.
    pub(crate) threads: u32,
    /// The most memory that a plugin's process had at a time, in KiB (`VmHWM`).
    pub(crate) kib: u64,
    /// What the call printed.
    pub(crate) stdout: Vec<u8>,
}

impl Traced {
    /// Counts in a call that came after.
    pub(crate) fn add(&mut self, next: &Traced) {
        self.processes += next.processes;
        self.threads += next.threads;
        self.kib = self.kib.max(next.kib);
    }
}

/// Runs `call` and watches it; memory counts for the programs that `is_plugin` says.
///
/// A shell waits for a first line of input and then becomes the program, so that nothing happens unseen.
pub(crate) fn run(call: &Call, is_plugin: impl Fn(&Path) -> bool) -> Result<Traced, Failure> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read -r go; exec \"$0\" \"$@\""])
        .arg(&call.program)
        .args(&call.arguments)
        .env_clear()
        .envs(call.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let seized = ptrace::seize(
        pid,
        Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXIT
            | Options::PTRACE_O_EXITKILL,
    );
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    stdin.write_all(b"go\n")?;
    stdin.write_all(&call.stdin)?;
    drop(stdin);
    seized.map_err(|error| format!("the call cannot be watched: {error}"))?;
    let mut traced = Traced {
        processes: 1,
        ..Traced::default()
    };
    let status = follow(pid, &mut traced, is_plugin)?;
    let (stdout, stderr) = outputs(&mut child)?;
    let _ = child.wait(); // reaped above
    if status != 0 {
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        return Err(format!("{} exit status {status}: {text}", call.program.display()).into());
    }
    traced.stdout = stdout;
    Ok(traced)
}

/// Follows all processes to their ends; the exit status of the first one.
fn follow(
    first: Pid,
    traced: &mut Traced,
    is_plugin: impl Fn(&Path) -> bool,
) -> Result<i32, Failure> {
    let mut status = None;
    loop {
        let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => return status.ok_or_else(|| "the call was lost".into()),
            Err(error) => return Err(error.into()),
            Ok(WaitStatus::Exited(pid, code)) => {
                status = if pid == first { Some(code) } else { status };
                continue;
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                status = if pid == first {
                    Some(128 + signal as i32)
                } else {
                    status
                };
                continue;
            }
            Ok(WaitStatus::PtraceEvent(
                pid,
                _,
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK,
            )) => {
                traced.processes += 1;
                (pid, None)
            }
            Ok(WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_CLONE)) => {
                match is_thread(ptrace::getevent(pid)?) {
                    true => traced.threads += 1,
                    false => traced.processes += 1,
                }
                (pid, None)
            }
            Ok(WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXIT)) => {
                if program(pid).is_some_and(|program| is_plugin(&program)) {
                    traced.kib = traced.kib.max(number(pid, "VmHWM:").unwrap_or_default());
                }
                (pid, None)
            }
            Ok(WaitStatus::PtraceEvent(pid, _, _)) => (pid, None),
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(WaitStatus::PtraceSyscall(pid) | WaitStatus::Continued(pid)) => (pid, None),
            Ok(WaitStatus::StillAlive) => continue,
        };
        match ptrace::cont(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn program(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Is it a thread of some process, rather than a process?
fn is_thread(id: i64) -> bool {
    number(id, "Tgid:").is_some_and(|group| i64::try_from(group) != Ok(id))
}

/// The number behind `key` in the status file of a process.
fn number(pid: impl std::fmt::Display, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_output_are_seen() {
        let call = Call {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".to_owned(),
                "read line; /bin/true; /bin/echo \"$line\" $KEY".to_owned(),
            ],
            environment: vec![("KEY", "value".to_owned())],
            stdin: b"input\n".to_vec(),
        };
        let traced = run(&call, |program| !program.ends_with("true")).unwrap();
        assert_eq!((traced.processes, traced.threads), (3, 0));
        assert_eq!(traced.stdout, b"input value\n");
        assert!((100..100_000).contains(&traced.kib), "{} KiB", traced.kib);
    }
}
