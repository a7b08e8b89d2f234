//! Running a tool: found, fed, listened to, and never waited for without a bound.

use std::fmt;
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cni_spec::error::os_text;
use cni_spec::quote;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Where tools are looked for after the folders of `PATH`.
const MORE_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// The lock that `iptables` puts on its tables, unless the environment has another.
const LOCK_FILE: &str = "/run/xtables.lock";

/// Where the tools are, and how long one may take.
#[derive(Clone, Debug)]
pub struct Tools {
    folders: Vec<PathBuf>,
    lock_file: PathBuf,
    limits: Limits,
}

/// How long a tool may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// It, or we before it is started, may wait so long for the lock of the `iptables` tables, in seconds.
    pub lock_seconds: u64,
    /// It may take so long in all.
    pub total: Duration,
}

impl Default for Limits {
    /// Long enough for the lock of a busy node and then to work, short enough for the runtime to hear of it.
    fn default() -> Limits {
        Limits {
            lock_seconds: 10,
            total: Duration::from_secs(30),
        }
    }
}

/// A tool at work. Dropped before its end, it is killed.
#[derive(Debug)]
#[must_use = "dropping this kills the tool"]
pub struct Job {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// What `stdin` has not taken yet.
    script: Vec<u8>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    output: Output,
    ended: bool,
    limit: Duration,
    end: Instant,
}

/// What a tool had to say.
#[derive(Clone, Debug, Default)]
pub struct Output {
    command: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// A tool that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is in none of the folders.
    #[error("exec: {}: executable file not found in $PATH", quote::quoted(.0))]
    NotFound(String),
    /// It cannot be started.
    #[error("fork/exec {}: {}", .path.display(), os_text(.error))]
    NotStarted {
        /// The tool.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It cannot be talked to.
    #[error("running [{command}]: {}", os_text(.error))]
    NotHeard {
        /// The command line.
        command: String,
        /// What the system says.
        error: io::Error,
    },
    /// It did not come to an end, and was killed.
    #[error("running [{command}]: killed after {} seconds without an end", .limit.as_secs_f32())]
    Overrun {
        /// The command line.
        command: String,
        /// How long it had.
        limit: Duration,
    },
    /// The kernel does not tell what its packet filter holds.
    #[error("failed to list chains: {}", os_text(.0))]
    Ruleset(#[source] io::Error),
    /// The lock of the `iptables` tables was not to be had in time.
    #[error("{} is held by another process, for {seconds} seconds or more", .file.display())]
    Locked {
        /// The lock.
        file: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// It ended with an error.
    #[error("running [{command}]: {}: {stderr}", status_text(*.status))]
    Refused {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its own words, without white space at the end.
        stderr: String,
    },
}

impl ToolError {
    /// Is it likely that the same will work in a while? So if somebody else has the lock, or the machine is very busy.
    pub fn is_temporary(&self) -> bool {
        match self {
            // Up to version 1.8 each release has another sentence, but all name the lock.
            ToolError::Refused { status, stderr, .. } => {
                status.code() == Some(4)
                    && (stderr.contains("xtables lock")
                        || stderr.contains("temporarily unavailable"))
            }
            ToolError::Overrun { .. } | ToolError::Locked { .. } => true,
            // It changed whenever it was read.
            ToolError::Ruleset(error) => error.kind() == ErrorKind::Interrupted,
            ToolError::NotFound(_) | ToolError::NotStarted { .. } | ToolError::NotHeard { .. } => {
                false
            }
        }
    }

    /// Did the tool run and say no?
    pub fn is_refusal(&self) -> bool {
        matches!(self, ToolError::Refused { .. }) && !self.is_temporary()
    }

    /// Is there no such tool?
    pub fn is_not_found(&self) -> bool {
        matches!(self, ToolError::NotFound(_))
    }
}

fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => Signal::try_from(signal)
            .map_or(format!("signal: {signal}"), |it| format!("signal: {it}")),
        (None, None) => status.to_string(),
    }
}

impl Tools {
    /// The tools of the machine: on `PATH`, then in /usr/sbin, /sbin and /usr/local/sbin.
    pub fn system() -> Tools {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
        let lock_file =
            std::env::var_os("XTABLES_LOCKFILE").map_or(PathBuf::from(LOCK_FILE), PathBuf::from);
        Tools::new(
            folders.chain(MORE_FOLDERS.map(PathBuf::from)),
            lock_file,
            Limits::default(),
        )
    }

    /// The tools in these folders, of which the first found wins, with this lock of the `iptables` tables.
    pub fn new(
        folders: impl IntoIterator<Item = PathBuf>,
        lock_file: PathBuf,
        limits: Limits,
    ) -> Tools {
        Tools {
            folders: folders.into_iter().collect(),
            lock_file,
            limits,
        }
    }

    /// The same tools with other limits.
    pub fn limited(self, limits: Limits) -> Tools {
        Tools { limits, ..self }
    }

    /// The lock of the `iptables` tables. Environment: `XTABLES_LOCKFILE`, as for `iptables` itself.
    pub fn lock_file(&self) -> &Path {
        &self.lock_file
    }

    /// How long a tool may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Where the tool is.
    pub fn find(&self, tool: &str) -> Result<PathBuf, ToolError> {
        let mut candidates = self.folders.iter().map(|folder| folder.join(tool));
        candidates
            .find(|path| is_executable(path))
            .ok_or_else(|| ToolError::NotFound(tool.to_owned()))
    }

    /// Starts the tool and hands it `stdin`; does not wait for it.
    pub fn start(
        &self,
        tool: &str,
        arguments: &[&str],
        stdin: impl Into<Vec<u8>>,
    ) -> Result<Job, ToolError> {
        self.start_with(tool, arguments, stdin.into(), Stdio::piped())
    }

    /// The same; what it writes to standard output goes where it is told to.
    pub(super) fn start_with(
        &self,
        tool: &str,
        arguments: &[&str],
        stdin: Vec<u8>,
        stdout: Stdio,
    ) -> Result<Job, ToolError> {
        let path = self.find(tool)?;
        let command = std::iter::once(path.display().to_string())
            .chain(arguments.iter().map(|&it| it.to_owned()))
            .collect::<Vec<String>>()
            .join(" ");
        let mut child = Command::new(&path)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            // A group of its own, so that what the tool starts can be ended with it.
            .process_group(0)
            .spawn()
            .map_err(|error| ToolError::NotStarted { path, error })?;
        let mut job = Job {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            script: stdin,
            output: Output {
                command: command.clone(),
                ..Output::default()
            },
            command,
            ended: false,
            limit: self.limits.total,
            end: Instant::now() + self.limits.total,
        };
        job.prepare()
            .and_then(|()| job.write())
            .map_err(|error| job.not_heard(error))?;
        Ok(job)
    }

    /// Runs the tool to its end, or to the limit.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Result<Output, ToolError> {
        self.start(tool, arguments, "")?.finish()
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

impl Job {
    /// Waits for the end, and for all that the tool has to say.
    ///
    /// # Errors
    /// If it has not ended in time; it is killed then. Whether it did its work is for [`Output::success`] to say.
    pub fn finish(mut self) -> Result<Output, ToolError> {
        let mut gone = None;
        loop {
            let ended = self
                .child
                .try_wait()
                .map_err(|error| self.not_heard(error))?;
            self.write()
                .and_then(|()| self.read())
                .map_err(|error| self.not_heard(error))?;
            if let Some(status) = ended {
                self.ended = true;
                return Ok(Output {
                    status,
                    ..std::mem::take(&mut self.output)
                });
            }
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ToolError::Overrun {
                    command: self.command.clone(),
                    limit: self.limit,
                });
            }
            let gone = match &mut gone {
                Some(gone) => gone,
                gone => gone.insert(self.watch().map_err(|error| self.not_heard(error))?),
            };
            self.await_news(gone, left)
                .map_err(|error| self.not_heard(error))?;
        }
    }

    /// Our ends of the pipes never block.
    fn prepare(&self) -> io::Result<()> {
        for pipe in self
            .stdin
            .as_ref()
            .map(AsFd::as_fd)
            .into_iter()
            .chain(self.outputs())
        {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(())
    }

    fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        stdout
            .into_iter()
            .chain(self.stderr.as_ref().map(AsFd::as_fd))
    }

    /// Writes what standard input takes; closes it behind the last byte.
    fn write(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        while !self.script.is_empty() {
            match stdin.write(&self.script) {
                Ok(count) => drop(self.script.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It ended without reading everything: its status tells why.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.stdin = None;
        Ok(())
    }

    /// Reads what is there.
    fn read(&mut self) -> io::Result<()> {
        read_available(&mut self.stdout, &mut self.output.stdout)?;
        read_available(&mut self.stderr, &mut self.output.stderr)
    }

    /// Waits until a pipe has something for us, or room, or the tool is gone.
    fn await_news(&self, gone: &PipeReader, limit: Duration) -> io::Result<()> {
        let mut pipes = vec![PollFd::new(gone.as_fd(), PollFlags::POLLIN)];
        pipes.extend(
            self.stdin
                .as_ref()
                .map(|it| PollFd::new(it.as_fd(), PollFlags::POLLOUT)),
        );
        pipes.extend(self.outputs().map(|it| PollFd::new(it, PollFlags::POLLIN)));
        // Rounded up, so that the last wait is not a busy one.
        let limit =
            PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut pipes, limit) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A pipe that is closed when the tool is gone, to be waited for together with the others.
    fn watch(&self) -> io::Result<PipeReader> {
        let pid = self.pid();
        let (reader, writer) = io::pipe()?;
        // Killing the tool ends the thread too.
        thread::Builder::new().spawn(move || {
            // The tool stays to be reaped, so that its number cannot become another's before we kill by it.
            while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                == Err(Errno::EINTR)
            {}
            drop(writer);
        })?;
        Ok(reader)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn not_heard(&self, error: io::Error) -> ToolError {
        ToolError::NotHeard {
            command: self.command.clone(),
            error,
        }
    }
}

fn read_available(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(source) = pipe else { return Ok(()) };
    match source.read_to_end(into) {
        Ok(_) => *pipe = None,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

impl Output {
    /// The output of a tool that did its work.
    ///
    /// # Errors
    /// If it ended with another status than 0.
    pub fn success(self) -> Result<Output, ToolError> {
        if self.status.success() {
            return Ok(self);
        }
        let stderr = String::from_utf8_lossy(&self.stderr).trim_end().to_owned();
        Err(ToolError::Refused {
            command: self.command,
            status: self.status,
            stderr,
        })
    }

    /// The exit status; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it wrote to standard output.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// The command line.
impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command)
    }
}
