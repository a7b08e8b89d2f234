"""A node, and a neighbour on its link: namespaces that end, with all that is in them, when this process does."""

import json
import os
import shutil
import subprocess
from pathlib import Path

UPLINK = "uplink"
# Of documentation, so nobody's: RFC 5737 and RFC 3849. The node's and the neighbour's, IPv4 and IPv6.
NODE = ("192.0.2.1", "2001:db8::1")
NEIGHBOUR = ("192.0.2.2", "2001:db8::2")
PREFIX_LENGTH = (24, 64)

# The machine's files with a node's own /run and /var/lib, and with a layer over /etc and /opt that takes what is
# written there. A sysfs shows the links of the network namespace that it was mounted in; the cgroups are carried over.
PREPARE_NODE = """
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir /mnt/cgroup
mount --rbind /sys/fs/cgroup /mnt/cgroup
mount -t sysfs sysfs /sys
mount --rbind /mnt/cgroup /sys/fs/cgroup
umount -R /mnt/cgroup
for dir in etc opt; do
    mkdir -p /mnt/$dir/upper /mnt/$dir/work
    mount -t overlay -o lowerdir=/$dir,upperdir=/mnt/$dir/upper,workdir=/mnt/$dir/work overlay /$dir
done
for dir in /run /var/lib; do
    mount -t tmpfs -o mode=755 tmpfs $dir
done
if [[ -d /usr/lib/cni ]]; then # other plugins than those to examine
    mount -t tmpfs tmpfs /usr/lib/cni
fi
rm -rf /etc/cni /etc/containers /etc/containerd /etc/resolv.conf /opt/cni
echo 'nameserver 192.0.2.2' >/etc/resolv.conf
"""

# Tells the process id that the machine knows it by (its /proc is still the machine's), and ends with its input.
# As the first process of a process namespace it takes all others there with it, and until then buries the orphans.
HOLD = """
read -r pid _ </proc/self/stat
{prepare}
ip link set lo up
echo "$pid"
read -r || true
"""


class Namespaces:
    """Namespaces held by a process of our own."""

    def __init__(self, *options: str, prepare: str = "") -> None:
        self._enter = [option for option in options if option not in ("--fork", "--kill-child")]
        self._holder = subprocess.Popen(
            ["unshare", *options, "bash", "-ec", HOLD.format(prepare=prepare)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdin and self._holder.stdout
        self._input = self._holder.stdin
        pid = self._holder.stdout.readline()
        if not pid:
            raise RuntimeError("cannot make namespaces; the reason is above")
        self.pid = int(pid)

    def argv(self, *command: str) -> list[str]:
        """How to run `command` inside."""
        return ["nsenter", "--target", str(self.pid), *self._enter, "--", *command]

    def attempt(self, *command: str, timeout: float = 120) -> tuple[int, str]:
        """Runs `command` inside: its exit status, and what it printed."""
        done = subprocess.run(
            self.argv(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout.strip()

    def run(self, *command: str, timeout: float = 120) -> str:
        """The same, of a command that must succeed: its standard output."""
        done = subprocess.run(
            self.argv(*command),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def close(self) -> None:
        self._input.close()
        self._holder.wait()


class Node(Namespaces):
    """A node: its network, its processes, and its /run, /var/lib, /etc and /opt."""

    def __init__(self) -> None:
        super().__init__("--net", "--mount", "--pid", "--fork", "--kill-child", prepare=PREPARE_NODE)
        # Containers get cgroups below this one, which no other node has.
        self.cgroup = f"/cni-node-{os.getpid()}"
        self._own_mounts = self._mounts().keys()

    def path(self, path: str) -> Path:
        """Where this machine finds what is `path` on the node."""
        return Path(f"/proc/{self.pid}/root{path}")

    def write(self, path: str, text: str) -> None:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def install_plugins(self, plugins: Path) -> None:
        """Copies what is in `plugins` to where runtimes look for it, hard links as such."""
        target = self.path("/opt/cni/bin")
        target.mkdir(parents=True)
        subprocess.run(["cp", "--archive", f"{plugins}/.", target], check=True)

    def links(self) -> dict[str, str]:
        """The kind of each link but loopback and uplink, by name."""
        links = json.loads(self.run("ip", "-j", "-d", "link", "show"))
        kinds = {link["ifname"]: link.get("linkinfo", {}).get("info_kind", "") for link in links}
        return {name: kind for name, kind in kinds.items() if name not in ("lo", UPLINK)}

    def mounts(self) -> list[str]:
        """Where something has been mounted since the node was made."""
        return [where for mount, where in self._mounts().items() if mount not in self._own_mounts]

    def _mounts(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        return {fields[0]: fields[4] for fields in map(str.split, lines)}

    def cgroups(self) -> list[Path]:
        """The cgroups of containers, the inner before the outer: of one tree, or of one for each controller."""
        root = Path("/sys/fs/cgroup")
        trees = [root / self.cgroup[1:], *(tree / self.cgroup[1:] for tree in root.iterdir())]
        found = {Path(folder) for tree in trees for folder, _, _ in os.walk(tree)}
        return sorted(found, key=lambda folder: -len(folder.parts))

    def close(self) -> None:
        super().close()
        for cgroup in self.cgroups():
            cgroup.rmdir()


def join(node: Node, neighbour: Namespaces, pods: list[str]) -> None:
    """Lays a link between the two. Behind the node, the neighbour finds `pods`; behind the neighbour is the world."""
    # The neighbour knows the machine's process ids; the node knows only its own.
    neighbour.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", UPLINK, "netns", str(node.pid))
    for space, link, addresses in ((node, UPLINK, NODE), (neighbour, "eth0", NEIGHBOUR)):
        for address, length in zip(addresses, PREFIX_LENGTH):
            space.run("ip", "addr", "add", f"{address}/{length}", "dev", link, *["nodad"] * (":" in address))
        space.run("ip", "link", "set", link, "up")
    for address in NEIGHBOUR:
        node.run("ip", "route", "add", "default", "via", address)
    for subnet in pods:
        neighbour.run("ip", "route", "add", subnet, "via", NODE[":" in subnet])


def find(command: str, path: str | None = None) -> str:
    """The absolute path of `command`."""
    found = shutil.which(command, path=path)
    if not found:
        raise RuntimeError(f"`{command}` not found")
    return found
