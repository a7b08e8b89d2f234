//! How one plugin runs another: as a call within this process where the program found on `CNI_PATH` is this very
//! program, else as a process of its own. Same inputs, same outputs; nobody can tell the difference.
//!
//! Source: CNI specification, section 4 ("Plugin Delegation"), and the reference library's messages.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cni_spec::error::os_text;
use cni_spec::name::plugin_type;
use cni_spec::request::Command;
use cni_spec::{Code, Failure, Success, Version, json, quote};
use serde::Deserialize;
use serde_json::Value;

use crate::{Call, Outcome, Plugin, dispatch};

/// How long a program that is being written (`ETXTBSY`: an upgrade is under way) is waited for.
const BUSY_LIMIT: Duration = Duration::from_secs(6);
const BUSY_PAUSE: Duration = Duration::from_millis(50);

impl Call<'_> {
    /// Runs `command` of the plugin named `plugin` with `stdin` as its configuration; its standard output.
    ///
    /// # Errors
    /// The delegate's own error object unchanged, or one that says why it could not be run.
    pub fn delegate(
        &self,
        command: Command,
        plugin: &str,
        stdin: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let (program, found) = self.look_for_plugin(plugin)?;
        let outcome = match self.in_this_process(plugin, &found) {
            Some(delegate) => {
                let mut environment = self.environment.with_command(command);
                // Whoever looks has looked before: ADD would have been refused, and DEL goes on without a namespace.
                environment.netns_is_foreign = true;
                Finished::of(dispatch(
                    delegate,
                    self.registry,
                    &environment,
                    &mut &stdin[..],
                ))
            }
            None => execute(self, command, &program, stdin)?,
        };
        if outcome.failure.is_none() {
            self.stderr.borrow_mut().extend_from_slice(&outcome.stderr);
        }
        outcome.into_result()
    }

    /// ADD of the plugin named `plugin`; its result and the version that it was in.
    pub fn delegate_add(&self, plugin: &str, stdin: &[u8]) -> Result<(Success, Version), Failure> {
        let stdout = self.delegate(Command::Add, plugin, stdin)?;
        decode(&stdout, stdin_version(stdin).as_deref().unwrap_or_default())
    }

    /// The first regular file of that name in the folders of `CNI_PATH`.
    pub fn find_plugin(&self, plugin: &str) -> Result<PathBuf, Failure> {
        self.look_for_plugin(plugin).map(|(path, _)| path)
    }

    fn look_for_plugin(&self, plugin: &str) -> Result<(PathBuf, Metadata), Failure> {
        let plugin = plugin_type(plugin)?;
        let folders = self.environment.plugin_folders();
        if folders.is_empty() {
            return Err(Failure::new(Code::INVALID_ENVIRONMENT, "no paths provided"));
        }
        let mut candidates = folders.iter().filter_map(|folder| {
            let file = folder.join(plugin);
            let found = fs::metadata(&file).ok()?;
            found.is_file().then_some((file, found))
        });
        candidates.next().ok_or_else(|| {
            let folders = quote::list(folders.iter().map(|folder| folder.to_string_lossy()));
            Failure::new(
                Code::INTERNAL,
                format!(
                    "failed to find plugin {} in path {folders}",
                    quote::quoted(plugin)
                ),
            )
            .with_details(format!(
                "install `{plugin}` in one of these folders, or correct the runtime's plugin folder"
            ))
        })
    }

    /// The plugin within this process, if the program that was found is the one that is running.
    fn in_this_process(&self, plugin: &str, program: &Metadata) -> Option<&'static dyn Plugin> {
        let &(_, delegate) = self.registry.iter().find(|(name, _)| *name == plugin)?;
        let own = fs::metadata("/proc/self/exe").ok()?;
        ((own.dev(), own.ino()) == (program.dev(), program.ino())).then_some(delegate)
    }
}

/// The `cniVersion` of a configuration that is about to be handed over.
fn stdin_version(stdin: &[u8]) -> Option<String> {
    json::parse(stdin)
        .ok()?
        .get("cniVersion")?
        .as_str()
        .map(str::to_owned)
}

/// Addresses that an IPAM plugin gave; they go back when this is dropped, unless they are kept.
#[must_use = "dropping a lease gives its addresses back"]
pub struct Lease<'a> {
    call: &'a Call<'a>,
    plugin: &'a str,
    success: Success,
    kept: bool,
}

impl<'a> Lease<'a> {
    /// Asks the IPAM plugin named `plugin` for addresses, with the configuration of `call`.
    ///
    /// Its ADD failing is not followed by its DEL: that would take the addresses of an earlier ADD of the same
    /// attachment, and an IPAM plugin that fails gives back what it took.
    pub fn acquire(call: &'a Call<'a>, plugin: &'a str) -> Result<Lease<'a>, Failure> {
        let stdout = call.delegate(Command::Add, plugin, call.stdin());
        let mut lease = Lease {
            call,
            plugin,
            success: Success::default(),
            kept: false,
        };
        match stdout {
            Err(failure) => {
                lease.kept = true;
                Err(failure)
            }
            Ok(stdout) => {
                (lease.success, _) = decode(&stdout, call.version().as_str())?;
                Ok(lease)
            }
        }
    }

    /// What the IPAM plugin answered.
    pub fn success(&self) -> &Success {
        &self.success
    }

    /// The attachment stands: the addresses stay with it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // The error that brought us here is the one to report; the runtime's DEL tries again.
            let _ = self
                .call
                .delegate(Command::Del, self.plugin, self.call.stdin());
        }
    }
}

/// How a delegate ended.
struct Finished {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// `exit status 3`, `signal: killed`; `None` on success.
    failure: Option<String>,
}

impl Finished {
    fn of(outcome: Outcome) -> Finished {
        let failure = outcome.failed.then(|| "exit status 1".to_owned());
        Finished {
            stdout: outcome.stdout,
            stderr: outcome.stderr,
            failure,
        }
    }

    fn into_result(self) -> Result<Vec<u8>, Failure> {
        match self.failure {
            None => Ok(self.stdout),
            Some(how) => Err(diagnosis(&self.stdout, &self.stderr, &how)),
        }
    }
}

/// An error object as a delegate prints it.
#[derive(Default, Deserialize)]
#[serde(default, rename = "Error")]
struct ErrorWire {
    code: u32,
    msg: String,
    details: String,
}

/// What a failed delegate had to say.
fn diagnosis(stdout: &[u8], stderr: &[u8], how: &str) -> Failure {
    let shown = |bytes: &[u8]| quote::quoted(&String::from_utf8_lossy(bytes));
    if stdout.is_empty() {
        let msg = match stderr {
            [] => format!("netplugin failed with no error message: {how}"),
            text => format!("netplugin failed: {}", shown(text)),
        };
        return Failure::new(Code::NONE, msg);
    }
    let error = json::parse(stdout).map_err(|error| error.to_string());
    match error.and_then(|error| json::read::<ErrorWire>(&error).map_err(|error| error.to_string()))
    {
        Ok(error) => Failure {
            code: Code(error.code),
            msg: error.msg,
            details: error.details,
        },
        Err(error) => Failure::new(
            Code::NONE,
            format!(
                "netplugin failed but error parsing its diagnostic message {}: {error}",
                shown(stdout)
            ),
        ),
    }
}

/// Runs the program as a process.
fn execute(
    call: &Call<'_>,
    command: Command,
    program: &Path,
    stdin: &[u8],
) -> Result<Finished, Failure> {
    let mut prepared = process::Command::new(program);
    prepared
        .env_clear()
        .envs(call.environment.with_command(command).iter())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let cannot = |error: &io::Error| {
        let how = format!("fork/exec {}: {}", program.display(), os_text(error));
        diagnosis(&[], &[], &how)
    };
    let start = Instant::now();
    let mut child = loop {
        match prepared.spawn() {
            Ok(child) => break child,
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                if start.elapsed() > BUSY_LIMIT {
                    return Err(Failure {
                        code: Code::TRY_AGAIN_LATER,
                        ..cannot(&error)
                    }
                    .with_details(
                        "the file is still open for writing; an upgrade may be under way",
                    ));
                }
                thread::sleep(BUSY_PAUSE);
            }
            Err(error) => return Err(cannot(&error)),
        }
    };
    let input = child.stdin.take();
    let output = thread::scope(|scope| {
        // A pipe holds little; a delegate that answers before it has read everything must not wait for us.
        let writer = input.map(|mut input| {
            if stdin.len() <= 4096 {
                drop(input.write_all(stdin));
                None
            } else {
                Some(scope.spawn(move || drop(input.write_all(stdin))))
            }
        });
        let output = child.wait_with_output();
        drop(writer);
        output
    })
    .map_err(|error| cannot(&error))?;
    let failure = (!output.status.success()).then(|| status_text(output.status));
    Ok(Finished {
        stdout: output.stdout,
        stderr: output.stderr,
        failure,
    })
}

/// `exit status 3` or `signal: killed`.
fn status_text(status: ExitStatus) -> String {
    let signal = match (status.code(), status.signal()) {
        (Some(code), _) => return format!("exit status {code}"),
        (None, signal) => signal.unwrap_or_default(),
    };
    match signal {
        1 => "signal: hangup".to_owned(),
        2 => "signal: interrupt".to_owned(),
        3 => "signal: quit".to_owned(),
        4 => "signal: illegal instruction".to_owned(),
        6 => "signal: aborted".to_owned(),
        7 => "signal: bus error".to_owned(),
        9 => "signal: killed".to_owned(),
        11 => "signal: segmentation fault".to_owned(),
        13 => "signal: broken pipe".to_owned(),
        15 => "signal: terminated".to_owned(),
        other => format!("signal: signal {other}"),
    }
}

/// Reads what a delegate printed; its version where it says none is `default_version`.
fn decode(stdout: &[u8], default_version: &str) -> Result<(Success, Version), Failure> {
    let raw = |error: String| {
        Failure::new(
            Code::INTERNAL,
            format!("failed to unmarshal raw result: {error}"),
        )
    };
    let result = json::parse(stdout).map_err(|error| raw(error.to_string()))?;
    let result = if result.is_null() {
        Value::Object(serde_json::Map::new())
    } else {
        result
    };
    if !result.is_object() {
        return Err(raw(format!(
            "json: cannot unmarshal {result} into Go value of type map"
        )));
    }
    Success::decode(&result, default_version)
        .map_err(|error| Failure::new(Code::INTERNAL, error.to_string()))
}

#[cfg(test)]
mod tests;
