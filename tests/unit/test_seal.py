"""The seal: it opens for whom it was made, and for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.guards.seal import Seal, SealBroken
from tests.unit.events import TEXT

SEAL = Seal(bytes(range(32)))
VALUES = {"<EMAIL_ADDRESS_1>": "ada@example.com"}
SEALED = SEAL.seal("acme", "request", VALUES)


@given(tenant=TEXT, context=TEXT, values=st.dictionaries(TEXT, TEXT))
def test_what_is_sealed_opens_as_it_was(tenant: str, context: str, values: dict[str, str]) -> None:
    assert SEAL.open(tenant, context, SEAL.seal(tenant, context, values)) == values


def test_half_a_character_is_sealed_like_any_text() -> None:
    values = {"<PERSON_1>": "\ud800"}
    assert SEAL.open("acme", "r", SEAL.seal("acme", "r", values)) == values


@pytest.mark.parametrize(
    ("tenant", "context"),
    [("other", "request"), ("acme", "other"), ("acmereq", "uest"), ("acme ", "request"), ("", "")],
)
def test_it_opens_for_no_other_tenant_and_no_other_request(tenant: str, context: str) -> None:
    with pytest.raises(SealBroken):
        SEAL.open(tenant, context, SEALED)


def test_it_opens_under_no_other_secret() -> None:
    with pytest.raises(SealBroken):
        Seal(bytes(32)).open("acme", "request", SEALED)


@given(at=st.integers(0, len(SEALED) - 1), bit=st.integers(0, 7))
def test_it_does_not_open_once_a_bit_of_it_is_changed(at: int, bit: int) -> None:
    changed = bytearray(SEALED)
    changed[at] ^= 1 << bit
    with pytest.raises(SealBroken):
        SEAL.open("acme", "request", bytes(changed))


@pytest.mark.parametrize("sealed", [b"", b"x", SEALED[:16], SEALED[:-1], SEALED + b"x"])
def test_what_is_no_seal_does_not_open(sealed: bytes) -> None:
    with pytest.raises(SealBroken) as broken:
        SEAL.open("acme", "request", sealed)
    assert "ada" not in str(broken.value)


def test_the_same_is_sealed_to_the_same_and_no_two_to_the_same() -> None:
    assert SEAL.seal("acme", "request", VALUES) == SEALED
    others = [
        SEAL.seal("other", "request", VALUES),
        SEAL.seal("acme", "other", VALUES),
        SEAL.seal("acme", "request", {"<EMAIL_ADDRESS_1>": "bob@example.com"}),
    ]
    assert len({SEALED, *others}) == 4
    # Not even the first blocks are: what is sealed never shows where it begins alike.
    assert len({each[16:32] for each in (SEALED, *others)}) == 4


def test_nothing_can_be_read_in_what_is_sealed() -> None:
    assert b"ada" not in SEALED
    assert b"EMAIL" not in SEALED


def test_a_short_secret_is_none() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Seal(b"short")


def test_the_secret_does_not_show() -> None:
    assert "0123456789abcdef" not in repr(Seal(b"0123456789abcdef" * 2))
