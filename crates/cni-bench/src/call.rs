//! One call of a program as a runtime makes it, and how long it took.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::Failure;

/// A program, the environment and the standard input that it gets; nothing else is inherited.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) stdin: Vec<u8>,
}

/// A call that succeeded.
pub(crate) struct Done {
    /// From before its start to after its end.
    pub(crate) time: Duration,
    /// What it and all that it waited for spent on processors. Means something only if no other call runs meanwhile.
    pub(crate) cpu: Duration,
    pub(crate) stdout: Vec<u8>,
}

impl Call {
    /// Runs the program to its end.
    pub(crate) fn run(&self) -> Result<Done, Failure> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let before = cpu()?;
        let start = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that needs no input may be gone already.
            let _ = stdin.write_all(&self.stdin);
        }
        let (stdout, stderr) = outputs(&mut child)?;
        let status = child.wait()?;
        let time = start.elapsed();
        if status.success() {
            return Ok(Done {
                time,
                cpu: cpu()?.saturating_sub(before),
                stdout,
            });
        }
        let text = [stdout, stderr].map(|text| {
            String::from_utf8_lossy(&text)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        });
        Err(format!("{} {status}: {}", self.program.display(), text.join(" ")).into())
    }
}

/// What all processes that were waited for so far have spent on processors.
fn cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds =
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(microseconds.cast_unsigned()))
}

/// All that a child prints, until it closes both streams. Neither may be longer than a pipe holds.
pub(crate) fn outputs(child: &mut Child) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let Some(stream) = &mut child.stdout {
        stream.read_to_end(&mut stdout)?;
    }
    if let Some(stream) = &mut child.stderr {
        stream.read_to_end(&mut stderr)?;
    }
    Ok((stdout, stderr))
}
