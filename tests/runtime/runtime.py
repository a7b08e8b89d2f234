"""What the exam asks of a container runtime."""

from abc import ABC, abstractmethod
from pathlib import Path

from node import Node
from report import Report

HTTP_PORT = 8080  # where every pod serves its own name


def server(name: str) -> list[str]:
    """The command of a pod's only container."""
    return ["sh", "-c", f"echo {name} >/www/index.html; exec httpd -f -p {HTTP_PORT} -h /www"]


class Pod(ABC):
    """A pod that serves its name over HTTP."""

    name: str
    id: str
    addresses: list[str]
    """IPv4 before IPv6, as the runtime reports them."""
    host_port: int
    """0 if it has none."""

    @abstractmethod
    def attempt(self, *command: str) -> tuple[int, str]:
        """Runs `command` in the container: its exit status, and what it printed."""

    @abstractmethod
    def stop(self) -> None:
        """Stops it, as often as it is called."""

    @abstractmethod
    def remove(self) -> None:
        """Removes what is left of a stopped one."""


class Runtime(ABC):
    """A container runtime on a node."""

    # Folders of the node that the runtime, not the plugins, keeps its state in.
    own_folders: tuple[str, ...]

    def __init__(self, node: Node, report: Report, work: Path) -> None:
        self.node, self.report, self.work = node, report, work

    @abstractmethod
    def start(self) -> str:
        """Makes it ready for pods, except for its network; tells what it is, with its version."""

    def network_trouble(self) -> str:
        """Why pods cannot have a network now; empty if they can, or if this runtime never asks before it starts one."""
        return ""

    @abstractmethod
    def start_pod(self, name: str, host_port: int = 0) -> Pod:
        """Starts a pod, with `host_port` of the node, if not 0, leading to its server."""

    @abstractmethod
    def pods(self) -> list[str]:
        """The ids of all pods, running or not."""

    def own_times(self) -> list[str]:
        """What the runtime itself has measured, a line each."""
        return []

    def last_words(self) -> str:
        """The end of its log, for a person who asks why something failed."""
        return ""
