"""podman 4 with CNI as its network backend."""

import json
from pathlib import Path

import image
from node import Node, find
from report import Report
from runtime import HTTP_PORT, Pod, Runtime, server

# To raise limits, as podman does unless told otherwise, takes CAP_SYS_RESOURCE, which not every root has; to ping takes
# NET_RAW.
CONFIG = """
[containers]
default_capabilities = ["CHOWN", "DAC_OVERRIDE", "KILL", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID"]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""


class Podman(Runtime):
    """The podman command on the node, and its files there."""

    own_folders = ("/run/containers", "/run/crun", "/run/libpod", "/run/runc", "/var/lib/containers")

    def __init__(self, node: Node, report: Report, work: Path, network: str) -> None:
        """`network` is the name in its configuration."""
        super().__init__(node, report, work)
        self.network = network

    def start(self) -> str:
        self.node.write("/etc/containers/containers.conf", CONFIG)
        self.node.write("/etc/containers/storage.conf", STORAGE)
        self.node.write("/etc/containers/policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        archive = self.work / "root.tar"
        archive.write_bytes(image.root())
        self.run("import", "--quiet", "--change", "ENV=PATH=/bin", str(archive), image.NAME)
        info = json.loads(self.run("info", "--format", "json"))
        version, backend = info["version"]["Version"], info["host"].get("networkBackend")
        if backend != "cni":
            raise RuntimeError(f"podman {version} has the network backend {backend}: podman 4 has CNI")
        return f"podman {version} with {info['host']['ociRuntime']['name']}"

    def start_pod(self, name: str, host_port: int = 0) -> Pod:
        return Container(self, name, host_port)

    def pods(self) -> list[str]:
        return self.run("ps", "--all", "--quiet", "--no-trunc").split()

    def run(self, *arguments: str) -> str:
        """What `podman ARGUMENTS` prints."""
        return self.node.run(find("podman"), *arguments)


class Container(Pod):
    """A container of podman's, which has a network of its own."""

    def __init__(self, podman: Podman, name: str, host_port: int) -> None:
        self.name, self.host_port, self._podman = name, host_port, podman
        publish = ["--publish", f"{host_port}:{HTTP_PORT}"] if host_port else []
        with podman.report.timed("run"):
            self.id = podman.run(
                "run",
                "--detach",
                "--pull",
                "never",
                "--name",
                name,
                "--network",
                podman.network,
                "--cgroup-parent",
                podman.node.cgroup,
                *publish,
                image.NAME,
                *server(name),
            ).strip()
        [inspected] = json.loads(podman.run("inspect", self.id))
        network = inspected["NetworkSettings"]["Networks"][podman.network]
        self.addresses = [it for it in (network["IPAddress"], network.get("GlobalIPv6Address")) if it]
        self._stopped = False

    def attempt(self, *command: str) -> tuple[int, str]:
        return self._podman.node.attempt(find("podman"), "exec", self.id, *command)

    def stop(self) -> None:
        with self._podman.report.timed("stop again" if self._stopped else "stop"):
            self._podman.run("stop", "--time", "0", self.id)
        self._stopped = True

    def remove(self) -> None:
        with self._podman.report.timed("rm"):
            self._podman.run("rm", self.id)
