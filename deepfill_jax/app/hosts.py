"""The host names under which browsers may address the server, and the options that name them."""

import argparse
import ipaddress
import re
from collections.abc import Collection

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed(host: str, proxies: Collection[str]) -> set[str]:
    """Returns the names that Host headers may contain, besides the proxies; empty allows any.

    Args:
        host: The address to listen on.
        proxies: Names of proxies, see `matches`.
    """
    # A server that listens on all addresses does not know by which names other machines reach it.
    is_any = host in ("", "0.0.0.0", "::")
    return set() if is_any and not proxies else {*LOOPBACK, host.lower()}


def matches(name: str | None, patterns: Collection[str]) -> bool:
    """Whether a name is one of the patterns, or below one that starts with a dot."""
    if name is None:
        return False
    suffixes = tuple(pattern for pattern in patterns if pattern.startswith("."))
    return name in patterns or f".{name}".endswith(suffixes)


def host_pattern(text: str) -> str:
    """Parses a host name, an address, or a dot and a domain, without port, for `argparse`."""
    name = text.lower().strip("[]")
    if not re.fullmatch(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*", name):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a name such as images.example.org, or .example.org for all names "
            "below it, without https:// and port"
        )
    return name


def root_path(text: str) -> str:
    """Parses the path below which a proxy publishes the server, for `argparse`."""
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~@-]+)+", path):
        raise argparse.ArgumentTypeError(f"{text!r} must be a path that starts with /")
    return path
