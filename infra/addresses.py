"""Which addresses a call to the outside may go to, decided where the connection is made.

A name is looked up once: every address that it has is judged, and one of those is dialled, so a
name that says something else a moment later (DNS rebinding) gains nothing. Names and literal
addresses are judged alike. TLS still proves the name.

Covered: link-local addresses and those where clouds keep their metadata are refused always;
loopback, private and all else that is not of the public internet, unless the caller allows it;
addresses inside addresses (IPv4-mapped, -compatible and -translated, 6to4, Teredo, NAT64) by what
is inside; a network's own NAT64, which does not show it, is refused always. Not covered: what a
public address forwards to.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Generic, Protocol, TypeVar

Ip = IPv4Address | IPv6Address
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

# Where clouds answer whoever asks with credentials of the machine, beside the link-local ones.
METADATA = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
METADATA_NAMES = frozenset(
    {"instance-data", "instance-data.ec2.internal", "metadata", "metadata.google.internal"}
)
# Whose last 32 bits are an IPv4 address: IPv4-compatible and -translated, NAT64 (RFC 4291, 2765 and
# 6052).
ENDING_IN_IPV4 = tuple(map(IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
# NAT64 of a network's own (RFC 8215): where in it the IPv4 address stands, only its operator knows.
LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
# Their own, though they lie in the first of these.
PLAIN = frozenset(map(IPv6Address, ("::", "::1")))
# Link-local for IPv6 too, long out of use; Python's own check leaves it out.
SITE_LOCAL = ip_network("fec0::/10")


class AddressForbidden(Exception):
    """A call must not go there; the message names the host and says why."""


class Network(Protocol[S_co]):
    """What opens TCP connections: the network backend of httpcore, whichever of its versions."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> S_co:
        """Connects."""

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> S_co:
        """Connects to a socket of this machine."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""


class Guard(Generic[S]):
    """A network that dials only what it may; it takes the place of httpcore's own backend.

    Args:
        network: Opens the connections.
        unreachable: What it raises where nothing answers: the next address is tried.
        private: Whether addresses of this machine and of private networks may be dialled.
    """

    def __init__(
        self, network: Network[S], unreachable: tuple[type[Exception], ...], *, private: bool
    ) -> None:
        self._network = network
        self._unreachable = unreachable
        self._private = private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> S:
        """Connects to the first address of a host that answers.

        Raises:
            AddressForbidden: The host may not be dialled.
            Exception: As the network has it, where no address answers or none is found.
        """
        try:
            async with asyncio.timeout(timeout):
                *others, last = await permitted(host, port, private=self._private)
        except (TimeoutError, OSError) as lack:
            raise self._unreachable[0](f"the name cannot be looked up: {lack}") from None
        for address in others:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except self._unreachable:
                continue
        return await self._network.connect_tcp(last, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> S:
        """Refuses: what is outside has no socket here.

        Raises:
            AddressForbidden: Always.
        """
        raise AddressForbidden("a socket of this machine is no address outside")

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await self._network.sleep(seconds)


async def permitted(host: str, port: int, *, private: bool) -> list[str]:
    """Returns the addresses of a host, in the order to try them; at least one.

    Args:
        host: A name or a literal address.
        port: TCP port.
        private: Whether addresses of this machine and of private networks may be dialled.

    Raises:
        AddressForbidden: One of its addresses may not be dialled, or its name is known for that.
        OSError: It has none.
    """
    if host.rstrip(".").lower() in METADATA_NAMES:
        raise AddressForbidden(f"{host} is where a cloud keeps its metadata")
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
    for address in addresses:
        if fault := _fault(ip_address(address), private=private):
            raise AddressForbidden(f"{host} is {fault}")
    return addresses


def forbidden(error: BaseException | None) -> bool:
    """Returns whether an error came of a forbidden address, however it is wrapped."""
    seen = 0
    while error is not None and seen < 10:  # noqa: PLR2004 - nothing wraps deeper
        if isinstance(error, AddressForbidden):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _fault(address: Ip, *, private: bool) -> str | None:
    inner = _inner(address)
    if inner is not None:
        return _fault(inner, private=private)
    if address in METADATA:
        return "where a cloud keeps its metadata"
    if address.is_link_local or address in SITE_LOCAL:
        return "a link-local address"
    if address.is_multicast or address.is_unspecified or address in LOCAL_NAT64:
        return "no address of a host, or one that does not show of which"
    if not private and not address.is_global:
        return "of this machine or a private network, which its connection does not allow"
    return None


def _inner(address: Ip) -> IPv4Address | None:
    """Returns the IPv4 address that an IPv6 one stands for, if any."""
    if isinstance(address, IPv4Address):
        return None
    if address not in PLAIN and any(address in network for network in ENDING_IN_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo
