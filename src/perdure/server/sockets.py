"""Listening sockets, their addresses, and the limit of open files."""

from __future__ import annotations

import ipaddress
import resource
import socket

OPEN_FILES = 65_536  # the most open files that a process asks for
PORTS_TRIED = 20  # from the default port on, if that one is in use


def bind(host: str, port: int, *, may_move: bool) -> socket.socket:
    """Bind a socket to `host` and `port`. With `may_move`, use the next free port if that one is in use.

    Raises OSError if the address cannot be bound.
    """
    last = port + PORTS_TRIED - 1 if may_move else port
    for candidate in range(port, last):
        try:
            return _bound(host, candidate)
        except OSError:
            continue
    return _bound(host, last)


def _bound(host: str, port: int) -> socket.socket:
    bare = host.strip("[]")
    return socket.create_server((bare, port), family=socket.AF_INET6 if ":" in bare else socket.AF_INET)


def allow_open_files() -> None:
    """Raise this process's limit of open files as far as allowed, because each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def address_of(host: str, port: int) -> str:
    """The URL of a server, without a trailing slash."""
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"


__all__ = ["PORTS_TRIED", "address_of", "allow_open_files", "bind", "is_loopback"]
