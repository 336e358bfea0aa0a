"""Which addresses a call may reach, and every way to write one that it may not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import HttpDenied, RegistrationError
from perdure.outbound import HttpPolicy
from perdure.outbound.addresses import NEVER, PRIVATE, AllowList, carried, denial, judge
from tests.outbound.conftest import asking, send

NOBODY = AllowList(())
INNER = [
    "127.0.0.1", "127.8.9.10", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "169.254.170.2",
    "100.64.0.1", "100.100.100.200", "168.63.129.16", "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "192.0.2.1", "198.18.0.1",
]  # fmt: skip


def wrapped(inner: str) -> list[str]:
    """The same machine by other names: IPv6 addresses that carry the IPv4 one."""
    high, low = divmod(int(IPv4Address(inner)), 65_536)
    text = f"{high:x}:{low:x}"
    return [
        f"::ffff:{text}",
        f"::ffff:0:{text}",
        f"::{text}",
        f"64:ff9b::{text}",
        f"64:ff9b:1::{text}",
        f"2002:{text}::1",
        f"2001:0:{text}::1",
        f"2606:4700::5efe:{text}",
        f"2606:4700::200:5efe:{text}",
    ]


@pytest.mark.parametrize("inner", INNER)
def test_special_addresses_are_denied_in_every_wrapping(inner):
    assert denial("x.example", 80, ip_address(inner), NOBODY)
    for outer in wrapped(inner):
        assert denial("x.example", 80, ip_address(outer), NOBODY), outer


@pytest.mark.parametrize("public", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_admitted(public):
    assert denial("x.example", 443, ip_address(public), NOBODY) == ""


@pytest.mark.parametrize(
    "address",
    ["::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "ff02::1",
     "2001:db8::1", "2001::1", "fec0::1", "100::1", "4000::1", "::ffff:7f00:1%1"],
)  # fmt: skip
def test_special_ipv6_addresses_are_denied(address):
    assert denial("x.example", 80, ip_address(address), NOBODY)


@given(st.ip_addresses(v=4))
def test_nothing_is_admitted_that_python_calls_private(address):
    if not address.is_global:
        assert judge(address)[0]


@given(st.ip_addresses(v=6))
def test_nothing_is_admitted_that_python_calls_private_v6(address: IPv6Address):
    inner = carried(address)
    if not (address if inner is None else inner).is_global:
        assert judge(address)[0]


@given(st.sampled_from([text for text, _ in (*PRIVATE, *NEVER)]), st.data())
def test_every_address_of_a_denied_network_is_denied(text, data):
    network = ip_network(text)
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    assert judge(network[offset])[0]


def test_a_host_on_the_list_may_be_private_but_never_serve_the_machines_credentials():
    listed = AllowList(["billing.internal", "*.svc.local", "here:8080"])
    assert denial("billing.internal", 80, ip_address("10.0.0.1"), listed) == ""
    assert denial("BILLING.internal.", 80, ip_address("::1"), listed) == ""
    assert denial("a.svc.local", 80, ip_address("10.0.0.1"), listed) == ""
    assert denial("here", 8080, ip_address("127.0.0.1"), listed) == ""
    assert "127.0.0.1" in denial("here", 8081, ip_address("127.0.0.1"), listed)
    assert denial("svc.local", 80, ip_address("10.0.0.1"), listed)
    assert denial("evil-svc.local", 80, ip_address("10.0.0.1"), listed)
    for never in ("169.254.169.254", "fe80::1", "168.63.129.16", "224.0.0.1", "::ffff:a9fe:a9fe"):
        assert "the network itself" in denial("billing.internal", 80, ip_address(never), listed)


def test_a_network_on_the_list_admits_what_is_in_it_in_any_wrapping():
    listed = AllowList(["10.2.0.0/16", "169.254.169.254", "[::1]:8080", "127.0.0.1:9000"])
    assert denial("x", 80, ip_address("10.2.3.4"), listed) == ""
    assert denial("x", 80, ip_address("::ffff:10.2.3.4"), listed) == ""
    assert denial("x", 80, ip_address("10.3.0.1"), listed)
    assert denial("x", 80, ip_address("169.254.169.254"), listed) == ""
    assert denial("x", 8080, ip_address("::1"), listed) == ""
    assert denial("x", 80, ip_address("::1"), listed)
    assert denial("x", 9000, ip_address("127.0.0.1"), listed) == ""
    assert denial("x", 9001, ip_address("127.0.0.1"), listed)


@pytest.mark.parametrize(
    "entry", ["10.2.0.1/16", "http://billing", "a b", "", "*", "*.", "x:99999", "ex*mple.com"]
)
def test_an_entry_that_means_nothing_is_refused(entry):
    with pytest.raises(RegistrationError):
        HttpPolicy(allow=[entry])


def test_a_policy_that_cannot_be_meant_is_refused():
    for wrong in ({"allow": "billing"}, {"only": "billing"}, {"timeout": 0}, {"max_response": -1}):
        with pytest.raises(RegistrationError):
            HttpPolicy(**wrong)


LOOPBACK_BY_OTHER_NAMES = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1.",
    "localhost", "localhost.", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "0", "[::]",
    "[0:0:0:0:0:0:0:1]", "\uff11\uff12\uff17.0.0.1", "127。0。0。1", "①②⑦.⓪.⓪.①", "%31%32%37.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK_BY_OTHER_NAMES)
async def test_loopback_is_not_reached_under_any_of_its_names(host, server):
    """Denied, or not understood as an address at all; in no case is the server asked."""
    from perdure.errors import HttpCallError

    with pytest.raises((HttpCallError, ValueError)):
        await send(HttpPolicy(timeout=30), asking(f"http://{host}:{server.port}/"))
    assert not server.asked


@pytest.mark.parametrize("uri", ["http://127.0.0.1@8.8.8.8/", "http://8.8.8.8\\@127.0.0.1/", "http://a:b@c/"])
def test_credentials_in_an_address_are_refused_before_anything_is_recorded(uri):
    with pytest.raises(ValueError):
        asking(uri)


async def test_one_private_address_among_public_ones_condemns_the_answer():
    async def rebinding(host, port):
        return [ip_address("93.184.216.34"), ip_address("10.0.0.1")]

    with pytest.raises(HttpDenied, match=r"10\.0\.0\.1"):
        await send(HttpPolicy(timeout=30), asking("http://x.example/"), resolve=rebinding)


async def test_the_name_is_resolved_once_and_the_connection_is_made_to_what_was_checked(server, local):
    """DNS rebinding: a second lookup would give another address, but there is no second lookup."""
    answers = [[ip_address("127.0.0.1")], [ip_address("169.254.169.254")]]

    async def resolve(host, port):
        return answers.pop(0)

    policy = HttpPolicy(allow=["rebound.example"], timeout=30)
    response = await send(policy, asking(f"http://rebound.example:{server.port}/"), resolve=resolve)
    assert response.status_code == 404
    assert server.asked[0].headers["host"] == f"rebound.example:{server.port}"
    assert len(answers) == 1


async def test_only_these_hosts_means_no_other(server):
    policy = HttpPolicy(only=["jobs.example", f"127.0.0.1:{server.port}"], timeout=30)
    assert (await send(policy, asking(f"{server.url}/"))).status_code == 404
    with pytest.raises(HttpDenied, match=r"HttpPolicy\.only"):
        await send(policy, asking("http://8.8.8.8/"))
