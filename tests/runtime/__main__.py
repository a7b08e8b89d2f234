"""Has a real container runtime start and stop pods through a conflist and the plugins it names.

    python3 tests/runtime containerd|podman [OPTION...]        (as root)

Everything happens on a node made of namespaces, with its own /run, /var/lib, /etc and /opt, and a neighbour on its
link: the runtime finds plugins, configuration and state where it does on any node, and nothing of the machine's is
touched. All of it ends when this process does, however that comes. No image is pulled.
"""

import argparse
import ipaddress
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from exam import Exam
from node import Namespaces, Node, join
from report import Report, wait_until
from runtime import Runtime

WORKSPACE = Path(__file__).resolve().parent.parent.parent
SUBNET_ENV = "/run/flannel/subnet.env"


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that what is open is closed
    report = Report()
    with ExitStack() as opened:
        runtime = None
        try:
            work = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="cni-runtime-")))
            neighbour = opened.enter_context(closing(Namespaces("--net")))
            node = opened.enter_context(closing(Node()))
            runtime = make_runtime(options, node, report, work)
            examine(options, runtime, neighbour)
        except Exception as err:  # whatever it is, it is one more thing that did not work
            report.check("the exam goes on to its end", f"{type(err).__name__}: {err}")
        if runtime and report.failed:
            print(f"\nThe end of the runtime's log:\n{runtime.last_words()}")
    print(f"\n{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


def examine(options: argparse.Namespace, runtime: Runtime, neighbour: Namespaces) -> None:
    node, report = runtime.node, runtime.report
    network = json.loads(options.network.read_text(encoding="utf-8"))
    if options.status:
        network["cniVersion"] = "1.1.0"  # the first that has STATUS
    subnet_env = options.subnet_env.read_text(encoding="utf-8")
    flannel = dict(line.split("=", 1) for line in subnet_env.splitlines() if "=" in line and line[0] != "#")
    subnets = [flannel[key] for key in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET") if key in flannel]

    join(node, neighbour, [str(ipaddress.ip_interface(it).network) for it in subnets])
    node.install_plugins(options.plugins)
    node.write(f"/etc/cni/net.d/{options.network.name}", json.dumps(network))
    types = " → ".join(it["type"] for it in network["plugins"])
    which = f"network {network['name']} ({network['cniVersion']}): {types} of {options.plugins}"
    report.title(f"{runtime.start()}, {which}")
    if options.status:
        check_status(runtime, subnet_env)
    node.write(SUBNET_ENV, subnet_env)
    wait_until("the network is ready", lambda: not runtime.network_trouble())
    Exam(runtime, neighbour, subnets, int(flannel["FLANNEL_MTU"])).run()


def check_status(runtime: Runtime, subnet_env: str) -> None:
    """The node is ready for pods when flanneld has written its file, and not before."""
    node, report = runtime.node, runtime.report
    for when in ("before flanneld has written subnet.env", "when subnet.env is gone"):
        trouble = runtime.network_trouble()
        report.check(f"STATUS: NetworkReady is false {when}", "" if trouble else "it is true")
        report.check("STATUS: the node's condition names it", "" if SUBNET_ENV in trouble else f"but is `{trouble}`")
        node.write(SUBNET_ENV, subnet_env)
        report.check("STATUS: NetworkReady is true with it", runtime.network_trouble())
        node.path(SUBNET_ENV).unlink()


def make_runtime(options: argparse.Namespace, node: Node, report: Report, work: Path) -> Runtime:
    # Only one of the two needs what it imports.
    if options.runtime == "podman":
        from podman import Podman

        return Podman(node, report, work, json.loads(options.network.read_text(encoding="utf-8"))["name"])
    from containerd import Containerd

    return Containerd(node, report, work, options.containerd)


def absolute(path: str) -> Path:
    return Path(path).absolute()  # commands on the node run in its root


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/runtime", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runtime", choices=("containerd", "podman"))
    parser.add_argument(
        "--plugins", type=absolute, default=WORKSPACE / "target/cni", metavar="DIR", help="default: target/cni"
    )
    parser.add_argument(
        "--network",
        type=absolute,
        default=WORKSPACE / "conf/10-flannel.conflist",
        metavar="FILE",
        help="the conflist; default: conf/10-flannel.conflist",
    )
    parser.add_argument(
        "--subnet-env",
        type=absolute,
        default=WORKSPACE / "conf/subnet.env",
        metavar="FILE",
        help="what flanneld has written; default: conf/subnet.env",
    )
    parser.add_argument("--containerd", type=absolute, metavar="DIR", help="where its binaries are; default: PATH")
    parser.add_argument(
        "--status",
        action="store_true",
        help="for containerd 2: with a list of version 1.1.0, the node must become ready when subnet.env is there",
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("namespaces need root")
    return options


if __name__ == "__main__":
    sys.exit(main())
