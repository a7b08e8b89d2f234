//! `flannel`: hands a container to another plugin, with what flanneld wrote about this node.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_plugin::run(&flannel::Flannel)
}
