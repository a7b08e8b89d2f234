"""The exam: pods come, reach and are reached, go, and leave nothing behind."""

import ipaddress
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import image
import leftovers
from node import NEIGHBOUR, NODE, Namespaces, Node
from report import Report, wait_until
from runtime import HTTP_PORT, Pod, Runtime

FIRST_HOST_PORT = 18080
IN_A_ROW = 5
AT_ONCE = 20

Place = Callable[..., tuple[int, str]]
"""Runs a command somewhere: its exit status, and what it printed."""


class Exam:
    """One runtime's, on one node with one neighbour."""

    def __init__(self, runtime: Runtime, neighbour: Namespaces, subnets: list[str], mtu: int) -> None:
        """`subnets` are the node's, of which each gives every pod an address: gateway's address and prefix length."""
        self.runtime, self.neighbour, self.mtu = runtime, neighbour, mtu
        self.node: Node = runtime.node
        self.report: Report = runtime.report
        self.subnets = [ipaddress.ip_interface(it) for it in subnets]

    def run(self) -> None:
        self.report.title("first pod")
        first = self.start([("first", FIRST_HOST_PORT)])
        self.check_addresses(first)
        self.end(first)
        # What all pods share may stay when the first one goes, and is what all others have to leave as it is.
        shared = self.check_gone(first, None)
        print(f"         to stay: {', '.join(shared.links)}, and {shared.rules.total()} lines of packet filters")

        self.report.title(f"{IN_A_ROW} in a row")
        pods = self.start([("web", FIRST_HOST_PORT), *((f"pod{it}", 0) for it in range(2, IN_A_ROW + 1))])
        self.check_addresses(pods)
        self.check_interface(pods[0])
        self.check_traffic(pods[0], pods[1], pods)
        self.end(pods)
        self.check_gone(pods, shared)

        self.report.title(f"{AT_ONCE} at once")
        pods = self.start([(f"many{it}", FIRST_HOST_PORT + it) for it in range(AT_ONCE)], at_once=AT_ONCE)
        self.check_addresses(pods)
        self.check_each_port(pods)
        self.end(pods, at_once=AT_ONCE)
        self.check_gone(pods, shared)

        self.report.print_times()
        for line in self.runtime.own_times():
            print(f"  {line}")

    def start(self, pods: list[tuple[str, int]], at_once: int = 1) -> list[Pod]:
        with ThreadPoolExecutor(at_once) as workers:
            return list(workers.map(lambda it: self.runtime.start_pod(*it), pods))

    def end(self, pods: list[Pod], at_once: int = 1) -> None:
        def end(pod: Pod) -> None:
            pod.stop()
            pod.stop()  # kubelet may ask twice
            pod.remove()

        with ThreadPoolExecutor(at_once) as workers:
            list(workers.map(end, pods))

    def check_addresses(self, pods: list[Pod]) -> None:
        def wrong(pod: Pod) -> bool:
            addresses = [ipaddress.ip_address(it) for it in pod.addresses]
            return len(addresses) != len(self.subnets) or any(
                address not in subnet.network or address in (subnet.ip, subnet.network.network_address)
                for address, subnet in zip(addresses, self.subnets)
            )

        every = [address for pod in pods for address in pod.addresses]
        networks = " and ".join(str(it.network) for it in self.subnets)
        self.report.check(f"an address in {networks}", [f"{it.name}: {it.addresses}" for it in pods if wrong(it)])
        self.report.check("no address twice", [it for it in set(every) if every.count(it) > 1])

    def check_interface(self, pod: Pod) -> None:
        _, eth0 = pod.attempt("ip", "addr", "show", "eth0")
        missing = [f"{it}/{net.network.prefixlen}" for it, net in zip(pod.addresses, self.subnets)]
        missing = [it for it in missing if f" {it} " not in eth0]
        self.report.check("the pod's eth0 has the addresses that the runtime reports", [eth0] if missing else [])
        self.report.check(f"the pod's eth0 has MTU {self.mtu}", "" if f" mtu {self.mtu} " in eth0 else eth0)
        self.report.check("no address of it is tentative", eth0 if "tentative" in eth0 else "")
        for family, subnet in zip(("-4", "-6"), self.subnets):
            _, routes = pod.attempt("ip", family, "route")
            found = f"default via {subnet.ip} dev eth0" in routes
            self.report.check(f"the pod's default route is by {subnet.ip}", "" if found else routes or "no route")
        _, lo = pod.attempt("ip", "addr", "show", "lo")
        self.report.check("the pod's lo is up", "" if "127.0.0.1/8" in lo and ",UP" in lo else lo)

    def check_traffic(self, web: Pod, other: Pod, pods: list[Pod]) -> None:
        self.wait_for_servers([web])
        every = [address for pod in pods for address in pod.addresses]
        lost = [it for it in every if other.attempt("ping", "-c", "1", "-W", "3", it)[0]]
        self.report.check("pod to every pod: ping", [f"{it} does not answer" for it in lost])
        for version, pod, node, neighbour in zip((4, 6), web.addresses, NODE, NEIGHBOUR):
            status, said = other.attempt("ping", "-c", "1", "-W", "3", neighbour)
            self.report.check(f"pod to the world: ping, IPv{version}", said if status else "")
            self.check_page(web, f"pod to pod, IPv{version}", other.attempt, pod, HTTP_PORT)
            self.check_page(web, f"node to pod, IPv{version}", self.on_node, pod, HTTP_PORT)
            self.check_page(web, f"neighbour to pod, IPv{version}", self.outside, pod, HTTP_PORT)
            self.check_page(web, f"neighbour to hostPort, IPv{version}", self.outside, node, web.host_port)
            self.check_page(web, f"node to its own hostPort, IPv{version}", self.on_node, node, web.host_port)
            self.check_page(web, f"other pod to hostPort, IPv{version}", other.attempt, node, web.host_port)
            self.check_page(web, f"the pod to its own hostPort, IPv{version}", web.attempt, node, web.host_port)
        self.check_page(web, "node to 127.0.0.1, hostPort", self.on_node, "127.0.0.1", web.host_port)

    def check_each_port(self, pods: list[Pod]) -> None:
        self.wait_for_servers(pods)
        for version, node in zip((4, 6), NODE):
            pages = [(pod, self.page(self.outside, node, pod.host_port)) for pod in pods]
            wrong = [f"{pod.host_port}: {page}, not {pod.name}" for pod, page in pages if page != pod.name]
            self.report.check(f"every hostPort leads to its own pod, IPv{version}", wrong)

    def check_gone(self, pods: list[Pod], shared: leftovers.State | None) -> leftovers.State:
        state = leftovers.observe(self.runtime)
        for what, left in leftovers.of_pods(state, self.runtime, pods).items():
            self.report.check(f"no {what} is left", left)
        if shared:
            for what, left in leftovers.added(shared, state).items():
                self.report.check(f"no {what} more than after the first pod", left)
        status, _ = self.outside("nc", "-w", "1", NODE[0], str(FIRST_HOST_PORT))
        self.report.check(f"hostPort {FIRST_HOST_PORT} is closed", "" if status else "it accepts connections")
        return state

    def wait_for_servers(self, pods: list[Pod]) -> None:
        def serves(pod: Pod) -> bool:
            return self.page(self.on_node, pod.addresses[0], HTTP_PORT) == pod.name

        for pod in pods:
            wait_until(f"the server of {pod.name}", partial(serves, pod))

    def check_page(self, web: Pod, what: str, place: Place, address: str, port: int) -> None:
        # Three times: a rule that works every other time is broken too.
        pages = [self.page(place, address, port) for _ in range(3)]
        self.report.check(what, [page for page in pages if page != web.name])

    def page(self, place: Place, address: str, port: int) -> str:
        host = f"[{address}]" if ":" in address else address
        status, said = place("timeout", "5", "wget", "-q", "-O", "-", f"http://{host}:{port}/")
        return f"no page, but status {status}: {said}" if status else said

    def on_node(self, *command: str) -> tuple[int, str]:
        return self.node.attempt(image.busybox(), *command)

    def outside(self, *command: str) -> tuple[int, str]:
        return self.neighbour.attempt(image.busybox(), *command)
