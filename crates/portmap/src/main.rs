//! `portmap`: leads ports of the node to a container.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_plugin::run(&portmap::Portmap)
}
