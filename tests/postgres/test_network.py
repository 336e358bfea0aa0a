"""Namespaces reach the server, are cut off without anybody's being told, come back, and leave nothing behind."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.network import Network, refusal
from tests.postgres.servers import Server

CLIENT = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for line in sys.stdin:
        print(*connection.execute(line).fetchone(), flush=True)
"""

KILLED = """
import os, signal
from tests.postgres.network import Network
with Network("south") as network:
    print(network.address, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if reason := refusal():
        pytest.skip(reason)
    with Network("east", "west") as network:
        yield network


@pytest.fixture(scope="module")
def url(network: Network) -> Iterator[str]:
    listen = {"listen_addresses": f"127.0.0.1,{network.address}"}
    with Server(settings=listen, admits=[network.subnet]) as server, server.database() as url:
        yield network.url(url)


class Client:
    """A process in a namespace with one connection; it is asked a question a line."""

    def __init__(self, network: Network, name: str, url: str) -> None:
        command = [sys.executable, "-c", CLIENT, url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = network.start(name, command, **pipes)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, question: str) -> None:
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()

    def answer(self, within: float) -> str | None:
        ready, _, _ = select.select([self.process.stdout], [], [], within)
        return self.process.stdout.readline().strip() if ready else None


def test_each_namespace_reaches_the_server_from_an_address_of_its_own(network: Network, url: str) -> None:
    with Client(network, "east", url) as east, Client(network, "west", url) as west:
        addresses = set()
        for client in (east, west):
            client.ask("select host(inet_client_addr())")
            addresses.add(client.answer(20))
        assert len(addresses) == 2
        assert None not in addresses


def test_one_is_cut_off_while_the_other_goes_on(network: Network, url: str) -> None:
    with Client(network, "east", url) as east, Client(network, "west", url) as west:
        for client in (east, west):
            client.ask("select 1")
            assert client.answer(20) == "1"
        network.cut("east")
        east.ask("select 2")
        west.ask("select 3")
        assert west.answer(20) == "3"
        assert east.answer(1) is None
        assert east.process.poll() is None, "it was told"
        network.heal("east")
        assert east.answer(20) == "2"


def test_a_cut_one_finds_nobody(network: Network, url: str) -> None:
    network.cut("west")
    try:
        with Client(network, "west", f"{url}?connect_timeout=2") as west:
            west.ask("select 1")
            assert west.process.wait(60) != 0
    finally:
        network.heal("west")
    with Client(network, "west", url) as west:
        west.ask("select 1")
        assert west.answer(20) == "1"


def test_what_is_said_can_arrive_though_no_answer_does(network: Network, url: str) -> None:
    with Client(network, "east", url) as east, Client(network, "west", url) as west:
        east.ask("select pg_advisory_lock_shared(1) is null")
        assert east.answer(20) == "False"
        network.cut("east", "down")
        east.ask("select pg_advisory_lock(7) is null")
        assert east.answer(1) is None
        west.ask("select count(*) from pg_locks where locktype = 'advisory' and objid = 7")
        assert west.answer(20) == "1"
        network.heal("east")
        assert east.answer(20) == "False"


@pytest.mark.usefixtures("network")
def test_nothing_is_left_behind() -> None:
    with Network("north") as network:
        command = ["sh", "-c", "echo inside; sleep 100"]
        sleeper = network.start("north", command, stdout=subprocess.PIPE, text=True)
        assert sleeper.stdout.readline() == "inside\n"
        assert network.address in _told("addr")
        assert "-north" in _told("netns")
    sleeper.communicate()
    assert sleeper.returncode == -9
    assert network.address not in _told("addr")
    assert "-north" not in _told("netns")
    assert network.subnet.removesuffix("0/24") not in _told("route")


@pytest.mark.usefixtures("network")
def test_nothing_is_left_behind_by_one_who_is_killed() -> None:
    holder = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.returncode == -9
    address = holder.stdout.strip()
    assert address.startswith("198.18.")
    deadline = time.monotonic() + 20
    while address in _told("addr") or "-south" in _told("netns"):
        assert time.monotonic() < deadline, "the guard has not tidied up"
        time.sleep(0.02)


def _told(what: str) -> str:
    return subprocess.run(["ip", what], capture_output=True, text=True, check=True).stdout
