"""Questions to the audit, and proofs of who asked, on a lake that holds both tables."""

from __future__ import annotations

import base64
import hashlib
import json
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.audit import MOST_CHANGES, Question, ask, changes, instant, main, told
from infra.catalog import SigningKey
from infra.identity import SKEW
from infra.lake import EventTable, QueryInvalid, Row
from infra.proof import Signers, Unproved, proof
from infra.signing import SIGNATURE, Signer, generate
from infra.telemetry import now
from schemas.events import AuditOutcome, AuditRecorded, InferenceRecorded, Outcome
from schemas.topics import INFERENCE_REQUESTED
from tests.unit.lakes import NOON, recorded

HOUR = timedelta(hours=1)


def audited(number: int, **differing: Any) -> AuditRecorded:
    event = AuditRecorded(
        audit_id=f"a{number}",
        at=NOON + number * HOUR,
        source="catalog",
        principal="operator",
        tenant="demo",
        action="catalog.update",
        kind="endpoint",
        name="main.default.smollm2",
        outcome=AuditOutcome.DONE,
    )
    return replace(event, **differing)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    rows = [
        audited(0),
        audited(1, principal="alice", action="catalog.create", name="main.default.mine"),
        audited(2, action="catalog.grant", kind="grant", name="main.default.smollm2/alice"),
        audited(3, principal="bob", outcome=AuditOutcome.DENIED, reason="USE on main is missing"),
        audited(4, kind="version", name="main.default.smollm2@2"),
    ]
    table = EventTable.of(tmp_path, "audits", group="recorder")
    table.append([Row(event, "audits", 0, at) for at, event in enumerate(rows)])
    return tmp_path


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(), "a4 a3 a2 a1 a0"),
        (Question(who="operator"), "a4 a2 a0"),
        (Question(what="catalog.grant"), "a2"),
        (Question(what="catalog.*", who="alice"), "a1"),
        (Question(on="main.default.smollm2"), "a4 a3 a2 a0"),
        (Question(on="main.default.m*"), "a1"),
        (Question(on="main"), ""),
        (Question(since=NOON + 3 * HOUR), "a4 a3"),
        (Question(outcome="denied"), "a3"),
        (Question(limit=2), "a4 a3"),
        (Question(who="operator' OR 'a' = 'a"), ""),
        (Question(on="%"), ""),
    ],
)
def test_a_question_finds_what_it_asks_for_the_newest_first(
    lake: Path, question: Question, expected: str
) -> None:
    assert [row["audit_id"] for row in ask(lake, question).to_pylist()] == expected.split()


def test_without_a_table_nothing_was_audited(tmp_path: Path) -> None:
    with pytest.raises(QueryInvalid, match="no table"):
        ask(tmp_path, Question())


def test_a_row_is_told_in_a_line_and_its_changes_below(lake: Path) -> None:
    before = json.dumps({"owner": "alice", "etag": "1", "spec": {"routes": [{"pool": "a"}]}})
    after = json.dumps({"owner": "bob", "etag": "2", "spec": {"routes": [{"pool": "b"}, {}]}})
    event = audited(0, before=before, after=after, request_id="r1", trace_id="ab12")
    assert list(told(event.to_avro())) == [
        "2026-03-01 12:00:00Z  operator  catalog.update  endpoint main.default.smollm2  DONE",
        "    request r1  trace ab12",
        "    owner: alice -> bob",
        "    spec.routes[0].pool: a -> b",
    ]
    [denied] = ask(lake, Question(outcome="denied")).to_pylist()
    [line] = told(denied)
    assert line.endswith("DENIED: USE on main is missing")


def test_what_is_made_or_gone_is_told_field_by_field() -> None:
    body = json.dumps({"owner": "alice", "tags": {}, "comment": ""})
    assert list(changes(None, body)) == ["owner: nothing -> alice"]
    assert list(changes(body, None)) == ["owner: alice -> nothing"]
    assert list(changes("no JSON", '"text"')) == ["no JSON -> text"]


def test_a_change_is_one_short_line_whatever_it_holds() -> None:
    [line] = changes(None, json.dumps({"comment": "\x1b[31m" + "long\n" * 500}))
    assert len(line) < 120
    assert line.isprintable()
    [line] = told(audited(0, principal="\x1b[2Jé", reason="a\nb").to_avro())
    assert "\\x1b[2Jé" in line
    assert line.endswith("DONE: a\\nb")
    event = audited(0, after=json.dumps({f"f{n}": n for n in range(2 * MOST_CHANGES)}))
    lines = list(told(event.to_avro()))
    assert len(lines) == MOST_CHANGES + 2
    assert lines[-1] == f"    and {MOST_CHANGES} more; --json shows all"


@pytest.mark.parametrize("text", ["yesterday", "1", "5y", "2026-13-01", "999999w"])
def test_a_time_that_is_none_is_told_the_forms(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="2026-11-25"):
        instant(text)


def test_times_are_utc_and_spans_count_from_now() -> None:
    assert instant("2026-11-25") == datetime(2026, 11, 25, tzinfo=UTC)
    assert instant("2026-11-25T12:00:00+02:00") == datetime(2026, 11, 25, 10, tzinfo=UTC)
    assert timedelta(minutes=29) < now() - instant("30m") < timedelta(minutes=31)


def test_the_command_prints_lines_or_json(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKE_ROOT", str(lake))
    assert main(["--who", "alice", "--what", "catalog.*"]) == 0
    assert "alice  catalog.create  endpoint main.default.mine  DONE" in capsys.readouterr().out
    assert main(["--outcome", "denied", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "USE on main is missing"
    assert main(["--who", "nobody"]) == 0
    assert "nothing of that" in capsys.readouterr().err


SIGNER = Signer(generate())
KEY = SigningKey(
    key_id=SIGNER.key_id,
    principal="alice",
    public_key=SIGNER.public_key,
    not_before=NOON - HOUR,
    expires_at=None,
    revoked_at=None,
)


def signed(request_id: str = "r1") -> InferenceRecorded:
    value, deadline = b"the record's value", NOON + HOUR
    headers = dict(SIGNER.headers(INFERENCE_REQUESTED.name, b"acme", deadline, value))
    return replace(
        recorded(request_id),
        principal="alice",
        key_id=SIGNER.key_id,
        signature=base64.b64encode(headers[SIGNATURE] or b"").decode(),
        signed_digest=hashlib.sha256(value).hexdigest(),
        deadline=deadline,
    )


def proved(
    root: Path,
    event: InferenceRecorded,
    key: SigningKey | None = KEY,
    for_others: frozenset[str] = frozenset(),
) -> str:
    EventTable.of(root, "inferences", group="recorder").append([Row(event, "recorded", 0, 0)])
    known: Mapping[str, SigningKey] = {key.key_id: key} if key else {}
    return proof(root, event.request_id, Signers(known, for_others))


def test_who_may_ask_for_others_is_told_to_have_signed_for_them(tmp_path: Path) -> None:
    said = proved(tmp_path, replace(signed(), principal="bob"), for_others=frozenset({"alice"}))
    assert said.startswith("alice signed request r1 for bob, completed at")


def test_who_may_ask_for_others_signs_for_itself_all_the_same(tmp_path: Path) -> None:
    said = proved(tmp_path, signed(), for_others=frozenset({"alice"}))
    assert said.startswith("alice signed request r1, completed at")


def test_of_a_request_for_nobody_it_is_not_proved_for_whom(tmp_path: Path) -> None:
    with pytest.raises(Unproved, match="names nobody"):
        proved(tmp_path, replace(signed(), principal=""), for_others=frozenset({"alice"}))


def test_a_genuine_signature_tells_who_signed(tmp_path: Path) -> None:
    said = proved(tmp_path, signed())
    assert said == (
        f"alice signed request r1, completed at 2026-03-01 12:00:00, with key {KEY.key_id}, "
        "which was valid then"
    )


def test_a_request_that_was_refused_is_told_as_refused_and_why(tmp_path: Path) -> None:
    refused = replace(signed(), outcome=Outcome.REFUSED, reason="KEY_UNKNOWN", elapsed_ms=2000)
    said = "alice signed request r1, refused (KEY_UNKNOWN) at 2026-03-01 12:00:02, with key"
    assert proved(tmp_path, refused).startswith(said)


def test_a_request_dated_back_proves_nothing_by_a_key_that_had_expired(tmp_path: Path) -> None:
    back = replace(signed(), requested_at=NOON - 2 * HOUR, elapsed_ms=2 * 3_600_000)
    with pytest.raises(Unproved, match="expired at 2026-03-01 11:00:00, before that"):
        proved(tmp_path, back, replace(KEY, expires_at=NOON - HOUR, not_before=NOON - 3 * HOUR))


def test_a_key_counts_a_little_early_as_it_does_at_the_gateway(tmp_path: Path) -> None:
    early = replace(KEY, not_before=NOON + SKEW)
    assert "which was valid then" in proved(tmp_path, signed(), early)


@pytest.mark.parametrize(
    ("differing", "says"),
    [
        ({"tenant": "other"}, "is not that of key"),
        ({"deadline": NOON}, "is not that of key"),
        ({"signed_digest": "00" * 32}, "is not that of key"),
        ({"signature": base64.b64encode(bytes(64)).decode()}, "is not that of key"),
        ({"signature": "?"}, "holds no signature"),
        ({"signature": None}, "was not signed: its row has no signature"),
        ({"deadline": None}, "was not signed: its row has no deadline"),
        ({"principal": "bob"}, "names bob, but alice signed it"),
        ({"principal": ""}, "names nobody, but alice signed it"),
    ],
)
def test_what_was_not_signed_so_is_not_proved(
    tmp_path: Path, differing: dict[str, Any], says: str
) -> None:
    with pytest.raises(Unproved, match=says):
        proved(tmp_path, replace(signed(), **differing))


@pytest.mark.parametrize(
    ("differing", "says"),
    [
        ({"not_before": NOON + HOUR}, "counted only from 2026-03-01 13:00:00"),
        ({"expires_at": NOON}, "expired at 2026-03-01 12:00:00"),
        ({"revoked_at": NOON - HOUR}, "was revoked at 2026-03-01 11:00:00"),
    ],
)
def test_a_key_that_did_not_count_then_proves_nothing(
    tmp_path: Path, differing: dict[str, Any], says: str
) -> None:
    with pytest.raises(Unproved, match=says):
        proved(tmp_path, signed(), replace(KEY, **differing))


def test_a_key_that_was_revoked_later_still_proves(tmp_path: Path) -> None:
    later = replace(KEY, revoked_at=NOON + HOUR, expires_at=NOON + HOUR)
    assert "which was valid then" in proved(tmp_path, signed(), later)


def test_each_request_of_an_id_that_names_several_is_verified_for_itself(tmp_path: Path) -> None:
    first = replace(signed(), row_id="first")
    second = replace(signed(), row_id="second", requested_at=NOON + timedelta(minutes=1))
    table = EventTable.of(tmp_path, "inferences", group="recorder")
    table.append([Row(second, "recorded", 0, 0), Row(first, "recorded", 0, 1)])
    known = Signers({KEY.key_id: KEY})
    valid = f"with key {KEY.key_id}, which was valid then"
    assert proof(tmp_path, "r1", known).splitlines() == [
        "2 requests have the id r1:",
        f"  row first: alice signed request r1, completed at 2026-03-01 12:00:00, {valid}",
        f"  row second: alice signed request r1, completed at 2026-03-01 12:01:00, {valid}",
    ]
    forged = replace(signed(), row_id="third", tenant="other")
    table.append([Row(forged, "recorded", 0, 2)])
    with pytest.raises(Unproved) as problem:
        proof(tmp_path, "r1", known)
    told = str(problem.value)
    assert told.count("alice signed") == 2
    wrong = f"the signature of request r1 is not that of key {KEY.key_id}"
    assert f"  row third: not proved: {wrong}" in told.splitlines()


def test_what_is_not_there_is_not_proved(tmp_path: Path) -> None:
    with pytest.raises(Unproved, match="never knew the key"):
        proved(tmp_path, signed(), None)
    with pytest.raises(Unproved, match="no request r2"):
        proof(tmp_path, "r2", Signers({}))
