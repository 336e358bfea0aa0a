"""Network addresses that a call is allowed to reach.

An orchestrator's code is trusted. The addresses in its data often are not: a `Location`, a redirect or a field of the
input can name a machine that only this one can reach. So the policy checks the address of the connection, not the
text of the URL or the name in it. By default only addresses of the public internet are allowed (IANA's
special-purpose registries, RFC 6890). An IPv6 address that contains an IPv4 address (mapped, compatible, NAT64, 6to4,
ISATAP) is checked by both. A host on the allow-list can have a private address. It must not have an address where
clouds serve credentials, or a multicast or other special address. Such an address must be listed as a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PRIVATE: tuple[tuple[str, str], ...] = (
    ("127.0.0.0/8", "loopback"),
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("100.64.0.0/10", "shared by a provider's customers"),
    ("::1/128", "loopback"),
    ("fc00::/7", "private"),
    ("fec0::/10", "private (site-local)"),
)
"""Denied unless the host is on the allow-list."""

NEVER: tuple[tuple[str, str], ...] = (
    ("169.254.0.0/16", "link-local, where clouds serve credentials"),
    ("168.63.129.16/32", "Azure's own, where it serves credentials"),
    ("100.100.100.200/32", "Alibaba's own, where it serves credentials"),
    ("192.0.0.192/32", "Oracle's own, where it serves credentials"),
    ("fd00:ec2::/32", "Amazon's own, where it serves credentials"),
    ("fd20:ce::/32", "Google's own, where it serves credentials"),
    ("fe80::/10", "link-local"),
    ("0.0.0.0/8", "this host"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "reserved"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "this host"),
    ("100::/64", "for discarding"),
    ("64:ff9b:1::/48", "a local translation"),
    ("2001::/23", "for protocols, such as Teredo, which hides an IPv4 address"),
    ("2001:db8::/32", "for documentation"),
    ("3fff::/20", "for documentation"),
    ("5f00::/16", "segment routing"),
    ("ff00::/8", "multicast"),
)
"""Denied unless the network itself is on the allow-list."""

_PRIVATE = tuple((ip_network(text), why) for text, why in PRIVATE)
_NEVER = tuple((ip_network(text), why) for text, why in NEVER)
_GLOBAL = ip_network("2000::/3")
_CARRIERS = tuple(ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96", "::/96", "::ffff:0:0:0/96"))
_SIX_TO_FOUR = ip_network("2002::/16")


def carried(address: Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 one, if there is one."""
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if any(address in network for network in _CARRIERS) and number > 1:
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    if number >> 32 & 0xFDFFFFFF == 0x5EFE:  # ISATAP, with or without the universal bit
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def judge(address: Address) -> tuple[str, bool]:
    """Why an address is denied ("" if it is not), and whether a host on the allow-list can have it nevertheless."""
    plain = _without_zone(address)
    for network, why in _NEVER:
        if plain in network:
            return why, False
    for network, why in _PRIVATE:
        if plain in network:
            return why, True
    inner = carried(plain)
    if inner is not None:
        why, may = judge(inner)
        return (f"{why} ({inner} in it)" if why else ""), may
    if isinstance(plain, IPv6Address) and plain not in _GLOBAL:
        return "not of the public internet", False
    return "", False


def _without_zone(address: Address) -> Address:
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


@dataclass(frozen=True)
class AllowList:
    """Hosts and networks that are allowed in addition to the public internet.

    An entry is a host (`billing.internal`, `*.internal`) or an address or network (`10.2.0.0/16`), optionally with
    a port (`localhost:8080`, `[::1]:8080`).
    """

    entries: tuple[str, ...]
    _hosts: tuple[tuple[str, int], ...] = field(init=False, repr=False)
    _networks: tuple[tuple[Network, int], ...] = field(init=False, repr=False)

    def __init__(self, entries: Iterable[str]) -> None:
        hosts, networks = [], []
        given = tuple(entries)
        for entry in given:
            text, port = _entry(entry)
            network = _network(text)
            if network is not None:
                networks.append((network, port))
            else:
                hosts.append((_host(text, entry), port))
        object.__setattr__(self, "entries", given)
        object.__setattr__(self, "_hosts", tuple(hosts))
        object.__setattr__(self, "_networks", tuple(networks))

    def has_host(self, host: str, port: int) -> bool:
        """Whether a host name, or an address as text, is on the list."""
        folded = host.rstrip(".").casefold()
        try:
            return self.has_address(ip_address(folded.strip("[]")), port)
        except ValueError:
            return any(_same(folded, name) and at in (0, port) for name, at in self._hosts)

    def has_address(self, address: Address, port: int) -> bool:
        """Whether a network on the list contains the address, or the IPv4 address inside it."""
        plain = _without_zone(address)
        forms = [form for form in (plain, carried(plain)) if form is not None]
        return any(form in network and at in (0, port) for form in forms for network, at in self._networks)


def denial(host: str, port: int, address: Address, allowed: AllowList) -> str:
    """Why a connection to this address for this host is denied; "" if it is allowed."""
    why, may_be_allowed = judge(address)
    if not why or allowed.has_address(address, port):
        return ""
    if may_be_allowed and allowed.has_host(host, port):
        return ""
    shown = host if host.strip("[]") == str(address) else f"{host}, which is {address},"
    advice = "the host or the network" if may_be_allowed else "the network itself, not only the host,"
    return (
        f"{shown} is {why}, and call_http reaches the public internet only. To allow this call, add {advice} to "
        "App(http=HttpPolicy(allow=[...]))"
    )


def _entry(entry: str) -> tuple[str, int]:
    """Split an entry into its text and its port; the port 0 means any."""
    if _network(entry) is not None:
        return entry, 0
    text, colon, port = entry.rpartition(":")
    if colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
        return text.strip("[]"), int(port)
    return entry.strip("[]"), 0


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _host(text: str, entry: str) -> str:
    folded = text.rstrip(".").casefold()
    bare = folded.removeprefix("*.")
    if (
        not bare
        or not bare.isascii()
        or not bare.replace("-", "").replace(".", "").replace("_", "").isalnum()
    ):
        raise ValueError(
            f"{entry!r} is not a host (billing.internal, *.internal), an address or a network (10.2.0.0/16, with "
            "host bits of zero). Each of them can have a port"
        )
    return folded


def _same(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
