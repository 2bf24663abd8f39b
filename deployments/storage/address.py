"""Which network addresses a URL from a user may lead to: public ones, and those that the operator allowed.

An address is judged where it really leads: IPv6 forms that carry an IPv4 address (mapped, 6to4, Teredo, NAT64) are unwrapped first.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
LOW_32_BITS = 0xFFFF_FFFF
MAX_PORT = 0xFFFF
MAX_NAME_LENGTH = 253  # RFC 1035: 255 bytes on the wire

NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)  # what DNS can carry; other alphabets as xn--…

# Python's ``is_global`` follows the IANA registry of its release; these lead inside whatever it says.
NEVER_PUBLIC: tuple[IpNetwork, ...] = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; 192.0.0.192 is Oracle Cloud's metadata service
    IPv4Network("168.63.129.16/32"),  # Azure's host agent, the same address in every virtual network
    IPv4Network("198.18.0.0/15"),  # benchmarks, RFC 2544
    IPv4Network("100.64.0.0/10"),  # carrier NAT, RFC 6598; 100.100.100.200 is Alibaba Cloud's metadata service
    IPv6Network("64:ff9b:1::/48"),  # local-use NAT64, RFC 8215
    IPv6Network("fec0::/10"),  # site-local, RFC 3879
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
    IPv6Network("5f00::/16"),  # segment routing inside of a network, RFC 9602
)


def is_public(address: IpAddress) -> bool:
    """Whether an address, and every IPv4 address that it carries, belongs to the public internet."""
    return all(_is_public(inner) for inner in _unwrapped(address))


def parse_host(host: str) -> IpAddress | None:
    """Read a host as an address, also in the spellings that resolvers accept (``127.1``, ``0x7f000001``, ``2130706433``); None: a name."""
    host = host.rstrip(".")
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))  # never asks DNS
    except (OSError, ValueError):
        return None


def is_name(host: str) -> bool:
    """Whether a host can be a DNS name; a resolver breaks on a longer one."""
    return NAME.fullmatch(host) is not None and len(normal_name(host)) <= MAX_NAME_LENGTH


@dataclass(frozen=True, slots=True)
class AllowList:
    """Private places that the operator opened: names, addresses and CIDRs, with ``:port`` for one port only."""

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[IpNetwork, int | None], ...] = field(default=())

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read entries such as ``minio``, ``minio:9000``, ``10.0.0.0/8``, ``127.0.0.1:8080`` or ``[::1]:8080``.

        Raises:
            ValueError: an entry is none of these, so that it would never allow anything.
        """
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[IpNetwork, int | None]] = []
        for entry in entries:
            place, port = _split_port(entry.strip())
            if port is not None and not 0 < port <= MAX_PORT:
                raise ValueError(f"{entry!r} has a port that is none: it lies between 1 and {MAX_PORT}")
            try:
                networks.append((ip_network(place), port))
            except ValueError:
                _check_name(entry, place)
                names.add((normal_name(place), port))
        return cls(frozenset(names), tuple(networks))

    def allows_name(self, host: str, port: int) -> bool:
        """Whether a name may resolve to private addresses."""
        name = normal_name(host)
        return (name, None) in self.names or (name, port) in self.names

    def allows_address(self, address: IpAddress, port: int) -> bool:
        """Whether a private address may be dialled."""
        return any(
            only in {None, port} and inner in network for network, only in self.networks for inner in (address, *_unwrapped(address))
        )

    def opens_port(self, port: int) -> bool:
        """Whether some entry opens this port, for whatever address."""
        return any(only in {None, port} for _, only in (*self.names, *self.networks))


def normal_name(host: str) -> str:
    """Return a DNS name in its one spelling: lower case, without the dot of the root."""
    return host.lower().rstrip(".")


def _check_name(entry: str, place: str) -> None:
    if parse_host(place) is not None:
        raise ValueError(f"{entry!r} is an address cut short: write all of its parts, such as 10.0.0.0/8") from None
    if not is_name(place):
        raise ValueError(f"{entry!r} is no host, address or CIDR (host bits of a CIDR must be zero, names are matched whole)") from None


def _split_port(entry: str) -> tuple[str, int | None]:
    place, colon, port = entry.rpartition(":")
    bracketed = place.startswith("[") and place.endswith("]")
    if colon and port.isascii() and port.isdigit() and (bracketed or ":" not in place):
        return place.strip("[]"), int(port)
    return entry.strip("[]"), None


def _unwrapped(address: IpAddress) -> Iterator[IpAddress]:
    if isinstance(address, IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif address in NAT64:
        yield IPv4Address(int(address) & LOW_32_BITS)
    else:
        yield address


def _is_public(address: IpAddress) -> bool:
    if any(address in network for network in NEVER_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
