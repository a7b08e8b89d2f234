//! `host-local`: leases addresses from ranges, in files on the node.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_plugin::run(&host_local::HostLocal)
}
