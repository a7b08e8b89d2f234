//! The process itself: its environment, its streams, its exit status. Nothing else here touches them.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::process::ExitCode;

use cni_spec::error::os_text;
use cni_spec::{Code, Failure};

use crate::{Environment, Plugin, Registry, dispatch};

/// The `main` of a program with one plugin.
pub fn run(plugin: &dyn Plugin) -> ExitCode {
    run_one(plugin, &[])
}

/// The `main` of a program with several plugins, chosen by the name that it was started under (`argv[0]`).
///
/// Without such a name the names that there are go to standard error, with exit status 2.
pub fn run_by_name(registry: &'static Registry) -> ExitCode {
    let program = env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default();
    match registry.iter().find(|(plugin, _)| name == *plugin) {
        Some((_, plugin)) => run_one(*plugin, registry),
        None => {
            let names: Vec<&str> = registry.iter().map(|(name, _)| *name).collect();
            let text = format!(
                "{}: start this program under one of the names {}\n",
                name.display(),
                names.join(", ")
            );
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::from(2)
        }
    }
}

/// With one call, and so one awakening of who reads it: standard output's own buffer writes line by line.
fn write_stdout(text: &[u8]) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(text)
}

fn run_one(plugin: &dyn Plugin, registry: &'static Registry) -> ExitCode {
    // A panic becomes an error object; where it happened is for whoever reports the bug.
    panic::set_hook(Box::new(|info| {
        let _ = writeln!(io::stderr(), "{info}");
    }));
    // The process ends with what it is for: nothing is taken apart piece by piece.
    let environment = ManuallyDrop::new(env::vars_os().collect::<Environment>());
    let outcome = dispatch(plugin, registry, &environment, &mut io::stdin().lock());
    let _ = io::stderr().write_all(&outcome.stderr);
    match write_stdout(&outcome.stdout) {
        Ok(()) if outcome.failed => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = Failure::new(
                Code::IO,
                format!("error writing to stdout: {}", os_text(&error)),
            );
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}
