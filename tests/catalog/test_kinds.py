"""What the command line tells of kinds: every one, and examples that can be applied."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.declared.documents import write
from catalog.operator.kinds import KINDS, described, examples, listed
from catalog.operator.words import Unclear
from catalog.store.store import Store
from tests.catalog.commanding import Office
from tests.catalog.test_applying import said


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_is_told_with_its_fields_and_an_example(kind: str) -> None:
    text = "\n".join(described(kind))
    assert f"kind: {kind}\n" in text
    assert [field for field in KINDS[kind].model_fields if f"  {field}" not in text] == []
    assert any(line.startswith(kind) for line in listed())


def test_an_unknown_kind_is_told_what_there_is() -> None:
    with pytest.raises(Unclear, match="did you mean endpoint"):
        list(described("endpont"))


@pytest.mark.stack
def test_the_examples_can_be_applied_and_applied_again_change_nothing(store: Store) -> None:
    office, documents = Office(store), said(write(examples()))

    def applied() -> Any:
        return office.ask("apply", documents=documents).result["steps"]

    assert len(applied()) > len(KINDS)
    assert applied() == []
