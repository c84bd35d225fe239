"""What is personal data in a text, and what only looks like it."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import get_args

import pytest

from infra.bootstrap import ROOT
from schemas.policies import Entity
from streams.guards.pii import Span, disjoint, find
from streams.guards.pii.finding import KINDS

ALL = frozenset(KINDS)


def found(text: str) -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.entity) for span in find(text, ALL)]


def test_each_kind_that_a_policy_may_name_can_be_found() -> None:
    assert set(KINDS) == set(get_args(Entity))


@pytest.mark.parametrize(
    ("text", "value", "entity"),
    [
        ("pay with 4111 1111 1111 1111 now", "4111 1111 1111 1111", "CREDIT_CARD"),
        ("4111111111111111", "4111111111111111", "CREDIT_CARD"),
        ("amex 3782-822463-10005, thanks", "3782-822463-10005", "CREDIT_CARD"),
        ("💳4111111111111111🙂", "4111111111111111", "CREDIT_CARD"),
        ("caf\u0065\u0301 \u0301 4111-1111-1111-1111", "4111-1111-1111-1111", "CREDIT_CARD"),
        ("to DE89370400440532013000", "DE89370400440532013000", "IBAN_CODE"),
        ("GB82 WEST 1234 5698 7654 32 IS MINE", "GB82 WEST 1234 5698 7654 32", "IBAN_CODE"),
        ("PT50 0002 0123 1234 5678 9015 4", "PT50 0002 0123 1234 5678 9015 4", "IBAN_CODE"),
        ("my number: 078-05-1120.", "078-05-1120", "US_SSN"),
        ("SSN 078051120", "078051120", "US_SSN"),
        ("+49 30 1234567", "+49 30 1234567", "PHONE_NUMBER"),
        ("from +49 (0)89 4908762 on", "+49 (0)89 4908762", "PHONE_NUMBER"),
        ("(212) 555-0123", "(212) 555-0123", "PHONE_NUMBER"),
        ("my mobile is 98765 43210", "98765 43210", "PHONE_NUMBER"),
        ("ada+tag@example.com", "ada+tag@example.com", "EMAIL_ADDRESS"),
        ("https://x.de/?to=ada@example.com&id=1", "ada@example.com", "EMAIL_ADDRESS"),
        ("mailto:ada%40example.com", "ada%40example.com", "EMAIL_ADDRESS"),
        ('{"mail":"ada@example.com"}', "ada@example.com", "EMAIL_ADDRESS"),
        (r'"mails:\nada@example.com\n"', "ada@example.com", "EMAIL_ADDRESS"),
        ("ask ada@mail.corp.internal", "ada@mail.corp.internal", "EMAIL_ADDRESS"),
        ("ping 2001:db8::8a2e:370:7334", "2001:db8::8a2e:370:7334", "IP_ADDRESS"),
        ("http://192.168.3.4:80/", "192.168.3.4", "IP_ADDRESS"),
        ("ether 00:1A:2B:3C:4D:5E", "00:1A:2B:3C:4D:5E", "MAC_ADDRESS"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "CRYPTO"),
        ("was she born on 5 March 1980?", "5 March 1980", "DATE_OF_BIRTH"),
        ("passport no. C01X00T47", "C01X00T47", "PASSPORT"),
        ("VAT DE136695976", "DE136695976", "VAT_NUMBER"),
        ("bill DE136695976, please", "DE136695976", "VAT_NUMBER"),
    ],
)
def test_it_is_found_as_written_and_nothing_beside_it(text: str, value: str, entity: str) -> None:
    assert found(text) == [(value, entity)]


@pytest.mark.parametrize(
    "text",
    [
        "110bcd25-a55d-453a-8046-1297901ea002",
        "2026-11-25T06:22:33.123456Z",
        "1732515753123",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "v1.2.3.4567 and v1.2.3.4",
        "version 1.2.3.4",
        "S3 EKS C4 H1 D3 m2",
        "INTRODUCTORY",
        "order 6033391",
        "call 4111 1111 1111 1112",
        "my card 4111 1111 1111 1112 was refused",
        "sha512-0UPjpq0G+v2RnNzZ4111111111111111kQ/Mike+Bob==",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUA4111AAAFCAYAAACNbyblAAAAHElEQVQI12P4",
        "chatcmpl-9aBcD4kQ2LmN8xYz and call_abc123DEF456ghi789",
        "ISBN 978-3-16-148410-0 and 9783161484100",
        "/home/mike/src/Alice/4111111111111111x.py",
        "$19.99, 1,299.00 EUR and 0.4532015112830366",
        "std::vector at 06:22:33, ::1 and 127.0.0.1",
        "2026-11-25 and 25.11.2026 and 11/25/2026",
        "000-12-3456 and 666-12-3456 and 912-12-3456",
        "DE89370400440532013001",
        "postgresql://app:word@db.example.com:5432/x and git@github.com:a/b.git",
        "package@1.2.3 and @decorated.method",
        "A1234567 is the number of a part",
        "rows 10 20 30 40 50 60 and 0.12 0.345 0.99",
        "114-3941689-8773032",
    ],
)
def test_what_only_looks_like_it_is_let_be(text: str) -> None:
    assert found(text) == []


def test_only_the_kinds_that_are_asked_for_are_found() -> None:
    text = "ada@example.com pays with 4111 1111 1111 1111"
    assert [span.entity for span in find(text, {"CREDIT_CARD"})] == ["CREDIT_CARD"]
    assert find(text, {"PHONE_NUMBER", "US_SSN"}) == []
    assert find(text, ()) == []


def test_of_two_that_overlap_the_surer_takes_what_both_cover() -> None:
    person, mail = Span(0, 10, "PERSON", 0.6), Span(6, 20, "EMAIL_ADDRESS", 0.9)
    assert disjoint([mail, person]) == [Span(0, 20, "EMAIL_ADDRESS", 0.9)]


def test_of_two_as_sure_the_longer_takes_what_both_cover() -> None:
    short, long = Span(3, 6, "PHONE_NUMBER", 0.9), Span(0, 6, "IBAN_CODE", 0.9)
    assert disjoint([short, long]) == [long]


def test_those_that_only_touch_stay_two() -> None:
    spans = [Span(0, 3, "PERSON", 0.6), Span(3, 6, "PERSON", 0.6)]
    assert disjoint(reversed(spans)) == spans


def test_nothing_is_loaded_before_something_is_looked_for() -> None:
    heavy = ("faker", "phonenumbers", "presidio_analyzer", "spacy", "stdnum", "tldextract")
    script = f"import sys, streams.guards.pii; print([n for n in {heavy} if n in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_nothing_is_asked_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert found("ada@never-seen-before.co.uk") == [
        ("ada@never-seen-before.co.uk", "EMAIL_ADDRESS")
    ]
