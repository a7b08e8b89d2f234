"""What a node holds, and what of it a pod that is gone has left behind."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from node import Node
from runtime import Pod, Runtime


@dataclass
class State:
    """What plugins can leave on a node."""

    links: dict[str, str]
    """Kind by name."""
    files: dict[str, bytes]
    """Content by path, of what is in /run and /var/lib but not the runtime's own."""
    rules: Counter[str]
    """Lines of both packet filters, without their counters."""
    mounts: list[str]
    """Where namespaces and root filesystems of pods are mounted."""


def observe(runtime: Runtime) -> State:
    node = runtime.node
    return State(
        links=node.links(),
        files={path: data for top in ("/run", "/var/lib") for path, data in files(node, top, runtime.own_folders)},
        rules=rules(node),
        mounts=[it for it in node.mounts() if re.search("/netns/|/rootfs$|/merged$", it)],
    )


def of_pods(state: State, runtime: Runtime, pods: Iterable[Pod]) -> dict[str, list[str]]:
    """What in `state` is of `pods` or, where nobody can tell whose it is, of any pod; by what it is."""
    pods = list(pods)
    names, ids = names_of(pods), [pod.id.encode() for pod in pods]
    return {
        "interface": [name for name, kind in state.links.items() if kind == "veth"],
        "namespace or mount": state.mounts,
        "lease or state file": [
            path for path, data in state.files.items() if names.search(path) or any(it in data for it in ids)
        ],
        "packet filter rule": [rule for rule in state.rules if names.search(rule)],
        "pod of the runtime's": runtime.pods(),
    }


def added(before: State, after: State) -> dict[str, list[str]]:
    """What `after` has that `before` had not, by what it is."""
    return {
        "interface": sorted(after.links.keys() - before.links.keys()),
        "file": sorted(after.files.keys() - before.files.keys()),
        "packet filter rule": sorted((after.rules - before.rules).elements()),
    }


def names_of(pods: list[Pod]) -> re.Pattern[str]:
    """Matches what tells that a rule or a file is of one of `pods`: its id, its addresses, the port it has."""
    patterns = [pod.id for pod in pods]
    patterns += [rf"\bdports? {pod.host_port}\b" for pod in pods if pod.host_port]
    for address in (it for pod in pods for it in pod.addresses):
        longer = "[0-9a-f:]" if ":" in address else "[0-9.]"
        patterns.append(rf"(?<!{longer}){re.escape(address)}(?!{longer})")
    return re.compile("|".join(patterns))


def files(node: Node, top: str, left_out: tuple[str, ...]) -> Iterable[tuple[str, bytes]]:
    root = str(node.path("/")).rstrip("/")
    for folder, folders, names in os.walk(root + top):
        folders[:] = [it for it in folders if f"{folder}/{it}".removeprefix(root) not in left_out]
        for name in names:
            path = Path(folder, name)
            try:
                data = path.read_bytes() if path.is_file() else b""
            except FileNotFoundError:
                continue  # gone meanwhile
            yield str(path).removeprefix(root), data


def rules(node: Node) -> Counter[str]:
    lines: Counter[str] = Counter()
    for command in (["iptables-save"], ["ip6tables-save"], ["nft", "--stateless", "list", "ruleset"]):
        if shutil.which(command[0]):
            printed = node.run(*command).splitlines()
            lines.update(re.sub(r"\[\d+:\d+\]", "", line).strip() for line in printed if not line.startswith("#"))
    del lines[""]
    return lines
