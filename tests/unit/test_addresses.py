"""infra/addresses.py: which addresses may be dialled, and that those judged are those dialled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.addresses import AddressForbidden, Guard, forbidden, permitted

NEVER = [
    "0.0.0.0",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.0.1",
    "224.0.0.1",
    "2002:a9fe:a9fe::",
    "64:ff9b:1:a9fe:a9:fe00:808:808",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "::",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "::ffff:169.254.169.254",
    "fd00:ec2::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
]
OURS = [
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.1",
    "172.16.0.1",
    "192.168.1.1",
    "2130706433",
    "::1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:10.0.0.1",
    "fc00::1",
    "localhost",
]
PUBLIC = ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"]


class Lost(Exception):
    """Nothing answers."""


class Recorded:
    """A network that notes what is dialled; some addresses do not answer."""

    def __init__(self, *dead: str) -> None:
        self.dialled: list[str] = []
        self._dead = dead

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> str:
        self.dialled.append(host)
        if host in self._dead:
            raise Lost(host)
        return host

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> str:
        raise AssertionError(path)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def named(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Lets each look-up of any name have the next of these answers."""
    left = list(answers)

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        if not left:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(0, 0, 0, "", (address, port)) for address in left.pop(0)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("private", [False, True])
async def test_some_addresses_are_never_dialled(address: str, private: bool) -> None:
    with pytest.raises(AddressForbidden):
        await permitted(address, 80, private=private)


@pytest.mark.parametrize("address", OURS)
async def test_addresses_of_ones_own_network_are_dialled_where_the_connection_allows_it(
    address: str,
) -> None:
    with pytest.raises(AddressForbidden, match="which its connection does not allow"):
        await permitted(address, 80, private=False)
    assert await permitted(address, 80, private=True)


@pytest.mark.parametrize("address", PUBLIC)
async def test_public_addresses_are_dialled(address: str) -> None:
    assert [ip_address(found) for found in await permitted(address, 443, private=False)] == [
        ip_address(address)
    ]


@pytest.mark.parametrize(
    "name", ["metadata.google.internal", "METADATA.google.internal.", "metadata"]
)
async def test_names_of_cloud_metadata_are_not_even_looked_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch)
    with pytest.raises(AddressForbidden):
        await permitted(name, 80, private=True)


@given(st.ip_addresses(v=4))
async def test_an_ipv4_address_is_judged_alike_inside_an_ipv6_one(address: IPv4Address) -> None:
    async def judged(text: str) -> bool:
        try:
            return bool(await permitted(text, 80, private=False))
        except AddressForbidden:
            return False

    plain = await judged(str(address))
    assert await judged(f"::ffff:{address}") is plain
    assert await judged(f"::ffff:0:{address}") is plain
    assert await judged(f"64:ff9b::{address}") is plain
    # The first two of the IPv4-compatible ones are IPv6's own "none" and "myself".
    assert await judged(f"::{address}") is plain


async def test_a_name_is_looked_up_once_and_what_was_judged_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named(monkeypatch, ["1.1.1.1"], ["169.254.169.254"])
    network = Recorded()
    guard = Guard(network, (Lost,), private=False)
    assert await guard.connect_tcp("rebound.example", 443) == "1.1.1.1"
    with pytest.raises(AddressForbidden, match=r"rebound\.example"):
        await guard.connect_tcp("rebound.example", 443)
    assert network.dialled == ["1.1.1.1"]


async def test_one_forbidden_address_forbids_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, ["1.1.1.1", "10.0.0.1"])
    network = Recorded()
    with pytest.raises(AddressForbidden):
        await Guard(network, (Lost,), private=False).connect_tcp("mixed.example", 443)
    assert network.dialled == []


async def test_the_next_address_is_tried_where_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named(monkeypatch, ["1.1.1.1", "1.0.0.1"], ["1.1.1.1", "1.0.0.1"])
    assert await Guard(Recorded("1.1.1.1"), (Lost,), private=False).connect_tcp("a", 1) == "1.0.0.1"
    with pytest.raises(Lost, match=r"1\.0\.0\.1"):
        await Guard(Recorded("1.1.1.1", "1.0.0.1"), (Lost,), private=False).connect_tcp("a", 1)


async def test_a_name_without_an_address_counts_as_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named(monkeypatch)
    with pytest.raises(Lost):
        await Guard(Recorded(), (Lost,), private=False).connect_tcp("nowhere.example", 443)


async def test_no_socket_of_this_machine_is_opened() -> None:
    with pytest.raises(AddressForbidden):
        await Guard(Recorded(), (Lost,), private=True).connect_unix_socket("/run/docker.sock")


def test_a_forbidden_address_is_recognised_however_it_is_wrapped() -> None:
    wrapped = ValueError()
    wrapped.__cause__ = AddressForbidden()
    assert forbidden(wrapped)
    assert not forbidden(ValueError())
