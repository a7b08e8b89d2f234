"""containerd, driven as kubelet drives it: over the container runtime interface."""

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType

import grpc

import image
from node import Node, find
from report import Report, wait_until
from runtime import HTTP_PORT, Pod, Runtime, server

SOCKET = "/run/containerd/containerd.sock"
METRICS = "127.0.0.1:1338"

# Folders, socket and the place of networks are containerd's defaults, as on a real node. So is that of plugins, but
# Debian's containerd 2 looks in /usr/lib/cni before.
CONFIG = f"""
version = 2
[metrics]
  address = "{METRICS}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.NAME}"
  # To lower a score takes CAP_SYS_RESOURCE, which root of a container or a small machine may not have.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


class Containerd(Runtime):
    """A containerd process on the node."""

    own_folders = ("/run/containerd", "/var/lib/containerd", "/var/lib/pods")

    def __init__(self, node: Node, report: Report, work: Path, binaries: Path | None) -> None:
        """`binaries` is where containerd, its shim and ctr are; PATH is searched without it."""
        super().__init__(node, report, work)
        # containerd finds its shim there, and the shim runc.
        self._path = os.pathsep.join([*([str(binaries)] if binaries else []), os.environ["PATH"]])
        self._log = work / "containerd.log"
        self._types = compile_types(work)
        # Go's gRPC server does not accept a path as the name of the host that it is asked for.
        self._channel = grpc.insecure_channel(f"unix://{node.path(SOCKET)}", [("grpc.default_authority", "localhost")])

    def start(self) -> str:
        find("runc", self._path)
        self.node.write("/etc/containerd/config.toml", CONFIG)
        with self._log.open("wb") as log:
            daemon = subprocess.Popen(
                self.node.argv(find("containerd", self._path)),
                env={**os.environ, "PATH": self._path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            if daemon.poll() is not None:
                raise RuntimeError(f"containerd ended with status {daemon.returncode}")
            return bool(self.call("Version", timeout=2).runtime_name)

        wait_until("containerd answers", answers, 60)
        archive = self.work / "image.tar"
        image.write_oci_archive(archive, os.uname().machine)
        self.node.run(find("ctr", self._path), "--namespace", "k8s.io", "images", "import", str(archive))
        wait_until("the image is known", lambda: self.call("ImageStatus", image={"image": image.NAME}).image.id)
        version = self.call("Version")
        return f"{version.runtime_name} {version.runtime_version}"

    def network_trouble(self) -> str:
        conditions = {it.type: it for it in self.call("Status").status.conditions}
        network = conditions["NetworkReady"]
        return "" if network.status else network.message or network.reason or "no reason given"

    def start_pod(self, name: str, host_port: int = 0) -> Pod:
        return Sandbox(self, name, host_port)

    def pods(self) -> list[str]:
        return [it.id for it in self.call("ListPodSandbox").items]

    def call(self, method: str, timeout: float = 120, **fields):
        """Calls a method of either service of the interface."""
        service = "ImageService" if method.startswith("Image") else "RuntimeService"
        request, response = (getattr(self._types, method + kind) for kind in ("Request", "Response"))
        unary = self._channel.unary_unary(
            f"/runtime.v1.{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return unary(request(**fields), timeout=timeout)

    def own_times(self) -> list[str]:
        _, metrics = self.node.attempt(image.busybox(), "wget", "-q", "-O", "-", f"http://{METRICS}/v1/metrics")
        pattern = r'network_plugin_operations_duration_seconds\w*_(sum|count)\{operation_type="(\w+)"\} (\S+)'
        found = {(operation, kind): float(value) for kind, operation, value in re.findall(pattern, metrics)}
        lines = []
        for operation, count in ((operation, count) for (operation, kind), count in found.items() if kind == "count"):
            if count:
                mean = 1000 * found[operation, "sum"] / count
                lines.append(f"the network part of all, {operation}: {mean:.1f} on average of {count:.0f}")
        return lines

    def last_words(self) -> str:
        if not self._log.exists():
            return ""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if re.search("level=(error|fatal|panic)", line)][-20:] or lines[-5:])


class Sandbox(Pod):
    """A pod sandbox with one container in it."""

    def __init__(self, containerd: Containerd, name: str, host_port: int) -> None:
        self.name, self.host_port, self._call, self._report = name, host_port, containerd.call, containerd.report
        self._stopped = False
        uid = str(uuid.uuid4())
        config = {
            "metadata": {"name": name, "uid": uid, "namespace": "test"},
            "hostname": name,
            "log_directory": f"/var/lib/pods/{uid}",
            "port_mappings": [{"container_port": HTTP_PORT, "host_port": host_port}] if host_port else [],
            "linux": {
                "cgroup_parent": containerd.node.cgroup,
                "security_context": {"namespace_options": {"pid": "CONTAINER"}},  # as kubelet asks
            },
        }
        with self._report.timed("RunPodSandbox"):
            self.id = self._call("RunPodSandbox", config=config).pod_sandbox_id
        network = self._call("PodSandboxStatus", pod_sandbox_id=self.id).status.network
        self.addresses = [it for it in (network.ip, *(more.ip for more in network.additional_ips)) if it]
        container = {
            "metadata": {"name": "server"},
            "image": {"image": image.NAME},
            "command": server(name),
            "log_path": "log",
        }
        with self._report.timed("Create-, StartContainer"):
            self._container = self._call(
                "CreateContainer", pod_sandbox_id=self.id, config=container, sandbox_config=config
            ).container_id
            self._call("StartContainer", container_id=self._container)

    def attempt(self, *command: str) -> tuple[int, str]:
        done = self._call("ExecSync", container_id=self._container, cmd=command, timeout=30)
        return done.exit_code, (done.stdout + done.stderr).decode(errors="replace").strip()

    def stop(self) -> None:
        with self._report.timed("StopPodSandbox again" if self._stopped else "StopPodSandbox"):
            self._call("StopPodSandbox", pod_sandbox_id=self.id)
        self._stopped = True

    def remove(self) -> None:
        with self._report.timed("RemovePodSandbox"):
            self._call("RemovePodSandbox", pod_sandbox_id=self.id)


def compile_types(work: Path) -> ModuleType:
    """The messages of cri.proto as Python classes."""
    here = Path(__file__).parent
    subprocess.run([find("protoc"), f"--proto_path={here}", f"--python_out={work}", here / "cri.proto"], check=True)
    sys.path.insert(0, str(work))
    import cri_pb2  # type: ignore[import-not-found]  # it is there only now

    return cri_pb2
