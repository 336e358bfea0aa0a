"""Network namespaces: hosts of their own for workers, on this machine, each to be cut off and healed.

    with Network("east", "west") as network:
        settings = {"listen_addresses": f"127.0.0.1,{network.address}"}
        with Server(settings=settings, admits=[network.subnet]) as server, server.database() as url:
            worker = network.start("east", [sys.executable, ..., network.url(url)])
            network.cut("east")

Each namespace has one cable (a veth pair) to this host and nothing else: no other network, not even this host's
loopback. The server's address stands on this host and is the same for all. Cutting is done at the cable's ends, by
having each end believe the other's hardware address to be one that nobody has: packets leave and never arrive, no
interface goes down, no route is lost, nobody gets an error. So it is for a process whose switch has failed.

After `heal` a connection goes on with its next retransmission, which may be about as far away as the cut was long;
new connections work at once. Needs root and iproute2, and is tidied up by a guard like servers are.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self
from urllib.parse import urlsplit

from tests.postgres.proxy import Direction
from tests.postgres.servers import ROLE, guard, guarded_directory

NOBODY = "02:00:00:00:00:99"  # a hardware address


@dataclass(frozen=True)
class Cable:
    """A namespace, and both ends of what connects it."""

    namespace: str
    here: str  # the interface on this host
    there: str  # the one in the namespace
    address: str  # of this host's end
    address_there: str
    hardware: str
    hardware_there: str


@cache
def refusal() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        raise RuntimeError("ip (iproute2) is missing: run `make postgres`, or `make test`")
    name = f"perdure-{secrets.token_hex(3)}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"this kernel gives no network namespaces: {tried.stderr.strip()}"
    veth = ["ip", "-n", name, "link", "add", "pd0", "type", "veth", "peer", "name", "pd1"]
    tried = subprocess.run(veth, capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"this kernel gives no veth pairs: {tried.stderr.strip()}" if tried.returncode else ""


class Network:
    """This host, and a namespace for each name."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._mark = secrets.token_hex(2)

    def __enter__(self) -> Self:
        self._third = _claimed_subnet()
        self.address = f"198.18.{self._third}.1"
        self.subnet = f"198.18.{self._third}.0/24"
        self._cables = {name: self._cable(number, name) for number, name in enumerate(self._names)}
        directory, self._users = guarded_directory("network")
        self._guard = guard(directory, ["sh", "-c", self._farewell()], ourselves=True)
        try:
            for cable in self._cables.values():
                _lay(cable, self.address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever still runs in the namespaces is killed."""
        os.close(self._users)
        self._guard.wait(30)

    def url(self, url: str) -> str:
        """The same database, by the address at which every namespace reaches it."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.username or ROLE}@{self.address}:{parts.port}").geturl()

    def cut(self, name: str, direction: Direction = "both") -> None:
        """Cut a namespace off; `up` is from it to this host, `down` to it."""
        self._believe(self._cables[name], direction, cut=True)

    def heal(self, name: str) -> None:
        self._believe(self._cables[name], "both", cut=False)

    def start(self, name: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A process in a namespace; it is a child of ours, to be signalled and waited for as any."""
        inside = ["ip", "netns", "exec", self._cables[name].namespace]
        return subprocess.Popen([*inside, *command], **options)

    def _cable(self, number: int, name: str) -> Cable:
        first = 4 * (number + 1)
        ends = [f"198.18.{self._third}.{first + 1}", f"198.18.{self._third}.{first + 2}"]
        hardware = [f"02:50:{self._mark[:2]}:{self._mark[2:]}:{number:02x}:0{end}" for end in (1, 2)]
        interfaces = [f"pd{self._mark}{side}{number}" for side in "ht"]
        return Cable(f"perdure-{self._mark}-{name}", *interfaces, *ends, *hardware)

    def _believe(self, cable: Cable, direction: Direction, *, cut: bool) -> None:
        if direction in ("both", "up"):
            hardware = NOBODY if cut else cable.hardware
            _neighbour(cable.address, hardware, cable.there, "-n", cable.namespace)
        if direction in ("both", "down"):
            _neighbour(cable.address_there, NOBODY if cut else cable.hardware_there, cable.here)

    def _farewell(self) -> str:
        lines = [f"ip addr del {self.address}/32 dev lo"]
        for cable in self._cables.values():
            lines += [
                f"ip netns pids {cable.namespace} | xargs -r kill -9",
                f"ip link del {cable.here}",
                f"ip netns del {cable.namespace}",
            ]
        return "\n".join(lines)


def _claimed_subnet() -> int:
    """The third number of a subnet that no other network of this machine has: its address is now on this host.

    The subnets are of the range that is set aside for tests of devices, 198.18.0.0/15.
    """
    refused = None
    for third in random.SystemRandom().sample(range(1, 255), 20):
        try:
            _ip("addr", "add", f"198.18.{third}.1/32", "dev", "lo")
        except RuntimeError as error:  # another test that runs now has it
            refused = error
        else:
            return third
    raise RuntimeError("no subnet of 198.18.0.0/16 could be claimed") from refused


def _lay(cable: Cable, server: str) -> None:
    """Lay a cable: addresses at both ends, known to each other for good, and the way to the server."""
    inside = "-n", cable.namespace
    _ip("netns", "add", cable.namespace)
    ends = "address", cable.hardware, "type", "veth", "peer", "name", cable.there
    _ip("link", "add", cable.here, *ends, "address", cable.hardware_there, "netns", cable.namespace)
    _ip("addr", "add", f"{cable.address}/30", "dev", cable.here)
    _ip(*inside, "addr", "add", f"{cable.address_there}/30", "dev", cable.there)
    _ip("link", "set", cable.here, "up")
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "link", "set", cable.there, "up")
    _neighbour(cable.address, cable.hardware, cable.there, *inside)
    _neighbour(cable.address_there, cable.hardware_there, cable.here)
    _ip(*inside, "route", "add", f"{server}/32", "via", cable.address)


def _neighbour(address: str, hardware: str, interface: str, *inside: str) -> None:
    _ip(*inside, "neigh", "replace", address, "lladdr", hardware, "dev", interface, "nud", "permanent")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
