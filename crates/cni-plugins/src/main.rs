//! All plugins in one program, chosen by the name it is started under.
//!
//! Installed once, with a hard link for each name: then a plugin that delegates to another one finds this very program
//! on `CNI_PATH`, and calls it without starting a process.

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
    cni_plugin::run_by_name(PLUGINS)
}
