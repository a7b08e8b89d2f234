//! All plugins in one program, chosen by the name it is started under.
//!
//! Installed once, with a hard link for each name: then a plugin that delegates to another one finds this very program
//! on `CNI_PATH`, and calls it without starting a process. `cni-plugins install DIR` installs it so.

mod install;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use cni_plugin::Registry;

/// Every plugin by its `type`.
static PLUGINS: &Registry = &[
    ("bridge", &cni_bridge::Bridge),
    ("flannel", &flannel::Flannel),
    ("host-local", &host_local::HostLocal),
    ("loopback", &loopback::Loopback),
    ("portmap", &portmap::Portmap),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    let is_plugin = arguments
        .first()
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|name| PLUGINS.iter().any(|(plugin, _)| name == *plugin));
    match arguments.as_slice() {
        [_, verb, folder] if !is_plugin && verb == "install" => {
            let names: Vec<&str> = PLUGINS.iter().map(|(name, _)| *name).collect();
            match install::install(Path::new("/proc/self/exe"), Path::new(folder), &names) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("cni-plugins: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ if is_plugin => cni_plugin::run_by_name(PLUGINS),
        _ => {
            eprintln!("usage: cni-plugins install DIR\nor start it under the name of a plugin:");
            PLUGINS.iter().for_each(|(name, _)| eprintln!("  {name}"));
            ExitCode::from(2)
        }
    }
}
