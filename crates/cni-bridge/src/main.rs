//! `bridge`: attaches a container to a Linux bridge.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_plugin::run(&cni_bridge::Bridge)
}
