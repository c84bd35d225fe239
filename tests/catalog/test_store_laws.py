"""What holds of the store whatever is done to it: by one for a long time, or by many at once."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydantic import BaseModel

from catalog.store.store import CatalogRefused, Change, Store
from schemas.events import AuditRecorded, CatalogChanged, Event, Reason
from schemas.kinds import EVERYONE, ROOT, Described, Grant, Key, Privilege, Version
from tests.catalog.acting import (
    ACTOR,
    WEIGHTS,
    begin,
    begun,
    folded,
    live,
    new_key,
    route,
)
from tests.harness import PATIENCE_S

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

STEPS = 400
# Few names, so that steps meet.
CATALOGS = ("main", "other")
SCHEMAS = tuple(f"{catalog}.{name}" for catalog in CATALOGS for name in ("a", "b"))
MODELS = tuple(f"{schema}.m" for schema in SCHEMAS)
ENDPOINTS = tuple(f"{schema}.{name}" for schema in SCHEMAS for name in ("e", "f"))
GROUPS = ("g", "h", "i", "j")
USERS = ("root", "u", "v")

BODIES: dict[str, type[BaseModel]] = {"grant": Grant, "key": Key, "version": Version}


class Walk:
    """Random steps over a catalog."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._keys = [new_key(user) for user in USERS]

    def step(self, change: Change) -> None:
        """Takes one step, which may well be refused."""
        self._dice.choice(self._steps())(change)

    def _steps(self) -> Sequence[Callable[[Change], object]]:
        return (
            self._container,
            self._delete,
            self._delete,
            self._endpoint,
            self._endpoint,
            self._grant,
            self._grant,
            self._group,
            self._key,
            self._model,
            self._owner,
            self._update,
            self._user,
            self._version,
            self._version,
        )

    def _any(self) -> tuple[str, str]:
        named = {
            "catalog": CATALOGS,
            "endpoint": ENDPOINTS,
            "group": GROUPS,
            "model": MODELS,
            "schema": SCHEMAS,
            "user": USERS,
            "version": tuple(f"{model}@{self._dice.randint(1, 3)}" for model in MODELS),
        }
        kind = self._dice.choice(sorted(named))
        return kind, self._dice.choice(named[kind])

    def _container(self, change: Change) -> None:
        kind, name = self._dice.choice(
            [("catalog", self._dice.choice(CATALOGS)), ("schema", self._dice.choice(SCHEMAS))]
        )
        change.create(kind, name, owner=self._dice.choice([*USERS, *GROUPS]))

    def _delete(self, change: Change) -> None:
        change.delete(*self._any())

    def _endpoint(self, change: Change) -> None:
        pinned = self._dice.choice(["", "@1", "@2", "@prod"])
        entity = self._dice.choice([None, f"{self._dice.choice(MODELS)}{pinned}"])
        name, spec = self._dice.choice(ENDPOINTS), route(entity=entity)
        if change.entry("endpoint", name) is None:
            change.create("endpoint", name, owner="root", spec=spec)
        else:
            change.update("endpoint", name, spec=spec)

    def _grant(self, change: Change) -> None:
        securable = self._dice.choice([ROOT, *CATALOGS, *SCHEMAS, *MODELS])
        principal = self._dice.choice([*USERS, *GROUPS, EVERYONE, "demo"])
        change.grant(securable, principal, self._privileges(), self._privileges())

    def _privileges(self) -> list[Privilege]:
        return self._dice.sample(list(Privilege), self._dice.choice([0, 0, 1, 2]))

    def _group(self, change: Change) -> None:
        name = self._dice.choice(GROUPS)
        members = self._dice.sample([*USERS, *GROUPS, "demo"], self._dice.randint(0, 3))
        if change.entry("group", name) is None:
            change.create("group", name, owner="root", spec={"members": members})
        else:
            change.update("group", name, spec={"members": members})

    def _key(self, change: Change) -> None:
        key_id, key = self._dice.choice(self._keys)
        if change.entry("key", key_id) is None:
            change.key(key_id, key)
        else:
            change.revoke_key(key_id)

    def _model(self, change: Change) -> None:
        change.create("model", self._dice.choice(MODELS), owner="root")

    def _owner(self, change: Change) -> None:
        kind, name = self._any()
        change.update(kind, name, owner=self._dice.choice(USERS))

    def _update(self, change: Change) -> None:
        kind, name = self._any()
        found = change.entry(kind, name)
        present = None if found is None else str(found.position)
        etag = self._dice.choice([None, present, "1"])
        tags = {"at": str(self._dice.randint(1, 3))}
        change.update(kind, name, etag=etag, tags=tags, comment="ü" * self._dice.randint(0, 3))

    def _user(self, change: Change) -> None:
        change.create("user", self._dice.choice(USERS), owner="root", spec={"tenant": "demo"})

    def _version(self, change: Change) -> None:
        name = self._dice.choice(MODELS)
        number = change.add_version("model", name, WEIGHTS)
        change.update("model", name, aliases={"prod": self._dice.randint(1, number)})


def told(store: Store) -> list[Event]:
    """Returns all that the outbox holds, in its order, and empties it."""
    events: list[Event] = []
    while waiting := store.waiting():
        events += [each.outgoing.event for each in waiting]
        store.forget(waiting[-1].id)
    return events


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_told_adds_up_to_what_there_is(store: Store, seed: int) -> None:
    begun(store)
    walk = Walk(seed)
    refused: set[Reason] = set()
    committed = 5
    for _ in range(STEPS):
        try:
            with store.change(ACTOR) as change:
                walk.step(change)
            committed += len(change.changes)
        except CatalogRefused as refusal:
            refused.add(refusal.reason)
    events = told(store)
    changes = [event for event in events if isinstance(event, CatalogChanged)]
    audits = [event for event in events if isinstance(event, AuditRecorded)]
    assert [changed.position for changed in changes] == list(range(1, committed + 1))
    assert folded(changes) == live(store)
    assert [audit.audit_id for audit in audits] == [
        f"catalog-{changed.position}-r-1" for changed in changes
    ]
    assert {Reason.ALREADY_EXISTS, Reason.NOT_FOUND, Reason.REFERENCED} <= refused
    for (kind, _), (_, body) in live(store).items():
        BODIES.get(kind, Described).model_validate_json(body or "null")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_audit_says_what_was_there_before(store: Store, seed: int) -> None:
    begun(store)
    walk = Walk(seed)
    for _ in range(STEPS // 4):
        try:
            with store.change(ACTOR) as change:
                walk.step(change)
        except CatalogRefused:
            continue
    present: dict[tuple[str, str], str | None] = {}
    for event in told(store):
        if isinstance(event, AuditRecorded):
            assert event.before == present.get((event.kind, event.name))
            present[event.kind, event.name] = event.after


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_of_a_transaction_is_left_that_fails_in_the_middle(store: Store, seed: int) -> None:
    begun(store)
    walk = Walk(seed)
    for _ in range(60):
        before, waiting = live(store), store.waiting()
        committed = False
        try:
            with store.change(ACTOR) as change:
                for _ in range(4):
                    walk.step(change)
            committed = True
        except CatalogRefused:
            assert (live(store), store.waiting()) == (before, waiting)
        if committed:
            assert folded([*store_changes(before), *change.changes]) == live(store)


def store_changes(
    entries: dict[tuple[str, str], tuple[int, str | None]],
) -> list[CatalogChanged]:
    """Returns entries as the changes that made them."""
    return [
        CatalogChanged(position=position, kind=kind, name=name, body=body, changed_at=ACTOR.at)
        for (kind, name), (position, body) in entries.items()
    ]


def test_many_writers_leave_no_gap_and_keep_the_order_of_commits(store: Store) -> None:
    begun(store)
    writers, each = 4, 40
    done, looked_on = threading.Event(), threading.Event()

    def write(writer: int) -> None:
        for number in range(each):
            # Who looks does so in the middle of the work, too.
            assert number < each // 2 or looked_on.wait(PATIENCE_S)
            with store.change(replace(ACTOR, request_id=f"{writer}-{number}")) as change:
                change.create("group", f"g-{writer}-{number}", owner="root")
                change.update("group", f"g-{writer}-{number}", comment="now")

    def read() -> int:
        """Returns how often it looked: what is committed never has a hole."""
        looked = 0
        while not done.is_set():
            events = [waiting.outgoing.event for waiting in store.waiting()]
            seen = [event.position for event in events if isinstance(event, CatalogChanged)]
            assert seen == list(range(1, len(seen) + 1))
            looked += 1
            if looked > 1 and len(seen) > 5:
                looked_on.set()
        return looked

    with ThreadPoolExecutor(writers + 1) as pool:
        looking = pool.submit(read)
        for writing in [pool.submit(write, writer) for writer in range(writers)]:
            writing.result()
        done.set()
        assert looking.result() > 1
    changes = [event for event in told(store) if isinstance(event, CatalogChanged)]
    assert [changed.position for changed in changes] == list(range(1, 2 * writers * each + 6))
    assert folded(changes) == live(store)


def test_of_two_who_read_the_same_one_wins(store: Store) -> None:
    begun(store)
    for turn in range(20):
        etag = json.loads(live(store)["catalog", "main"][1] or "")["etag"]

        def write(name: str, turn: int = turn, etag: str = etag) -> str:
            try:
                with store.change(replace(ACTOR, principal=name)) as change:
                    change.update("catalog", "main", etag=etag, comment=f"{turn} {name}")
            except CatalogRefused as refusal:
                return refusal.reason
            return name

        with ThreadPoolExecutor(2) as pool:
            ends = sorted(pool.map(write, ["alice", "bob"]))
        winner = next(end for end in ends if end != Reason.CONFLICT)
        assert sorted([winner, Reason.CONFLICT]) == ends
        assert json.loads(live(store)["catalog", "main"][1] or "")["comment"] == (
            f"{turn} {winner}"
        )


def test_the_first_change_of_an_empty_store_has_position_one(store: Store) -> None:
    assert list(store.entries()) == []
    assert store.snapshot().position == 0
    with store.change(ACTOR) as change:
        begin(change)
        assert [changed.position for changed in change.changes] == [1, 2, 3, 4, 5]
    assert store.snapshot().position == 5
