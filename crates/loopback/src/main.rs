//! `loopback`: sets up the link to itself that every container has.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_plugin::run(&loopback::Loopback)
}
