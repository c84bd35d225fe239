"""The filter of system calls, run as the kernel runs it."""

from __future__ import annotations

import errno
import struct

import pytest

from workers.tools import seccomp
from workers.tools.seccomp import ALLOW, AUDIT_ARCHITECTURES, ERRNO, KILL_PROCESS, REFUSE, program

PID = 4321
CLONE_THREAD, CLONE_VM = 0x10000, 0x100
ARCHITECTURES = ("x86_64", "aarch64")
ABSENT = ERRNO | errno.ENOSYS


def verdict(
    name: str, number: int, *arguments: int, architecture: str | None = None, network: bool = False
) -> int:
    """Returns what the filter for ``name`` says of a call that comes from ``architecture``."""
    came_from = AUDIT_ARCHITECTURES[architecture or name]
    data = struct.pack("=iIQ6Q", number, came_from, 0, *arguments, *[0] * (6 - len(arguments)))
    lines = list(struct.iter_unpack("=HBBI", program(name, pid=PID, network=network)))
    at, held = 0, 0
    while True:
        code, then, otherwise, operand = lines[at]
        at += 1
        match code:
            case 0x20:
                (held,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                held &= operand
            case 0x15:
                at += then if held == operand else otherwise
            case 0x25:
                at += then if held > operand else otherwise
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_forbidden_call_is_refused_and_the_pretended_are_not_made(name: str) -> None:
    column = ARCHITECTURES.index(name)
    for calls in (*seccomp.FORBIDDEN.values(), seccomp.NETWORK):
        for numbers in calls.values():
            number = numbers[column]
            assert number is None or verdict(name, number) == REFUSE
    for numbers in seccomp.PRETENDED.values():
        number = numbers[column]
        assert number is None or verdict(name, number) == ERRNO


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_call_stands_in_two_tables(name: str) -> None:
    column = ARCHITECTURES.index(name)
    tables = [*seccomp.FORBIDDEN.values(), seccomp.NETWORK, seccomp.PRETENDED, seccomp.ABSENT]
    numbers = [pair[column] for table in tables for pair in table.values()]
    numbers += [pair[column] for pair, _ in seccomp.CONDITIONS.values()]
    known = [number for number in numbers if number is not None]
    assert len(known) == len(set(known)) > 80
    assert max(known) <= seccomp.LAST


NUMBERS = {
    "aarch64": (63, 220, 131, 198, 199, 25, 167),
    "x86_64": (0, 56, 234, 41, 53, 72, 157),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_some_calls_go_by_what_they_ask(name: str) -> None:
    read, clone, tgkill, socket, socketpair, fcntl, prctl = NUMBERS[name]
    assert verdict(name, read) == ALLOW
    assert verdict(name, clone, CLONE_THREAD | CLONE_VM) == ALLOW
    assert verdict(name, clone, CLONE_VM) == REFUSE
    assert verdict(name, tgkill, PID, PID, 6) == ALLOW
    assert verdict(name, tgkill, 1, 1, 9) == REFUSE
    assert verdict(name, socketpair, 1, 0x80801) == ALLOW
    assert verdict(name, socketpair, 1, 2) == REFUSE
    assert verdict(name, socketpair, 2, 1) == REFUSE
    assert verdict(name, fcntl, 5, 3) == ALLOW
    assert [verdict(name, fcntl, 5, kind) for kind in (8, 10, 15, 1031)] == [REFUSE] * 4
    assert verdict(name, prctl, 15) == ALLOW
    assert verdict(name, prctl, 1) == REFUSE
    assert [verdict(name, socket, family, 1) for family in (1, 2, 10)] == [REFUSE] * 3
    granted = [verdict(name, socket, family, 1, network=True) for family in (1, 2, 10, 16, 38)]
    assert granted == [REFUSE, ALLOW, ALLOW, REFUSE, REFUSE]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_calls_of_another_architecture_end_the_process(name: str) -> None:
    [other] = set(ARCHITECTURES) - {name}
    assert verdict(name, 63, architecture=other) == KILL_PROCESS


@pytest.mark.parametrize("number", [435, seccomp.LAST + 1, 10_000, 0x40000000, 0x40000029])
def test_newer_calls_and_those_of_x32_do_not_exist(number: int) -> None:
    assert [verdict(name, number) for name in ARCHITECTURES] == [ABSENT] * 2


def test_there_is_no_filter_for_an_unknown_processor() -> None:
    with pytest.raises(seccomp.UnknownArchitecture, match="riscv64"):
        program("riscv64", pid=PID, network=False)
