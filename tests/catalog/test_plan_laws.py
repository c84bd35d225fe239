"""Laws of plans: their steps make what the documents say, once, and in an order that works."""

from __future__ import annotations

from hypothesis import given, settings

from catalog.declared.documents import Document, parse, write
from catalog.declared.picture import Picture
from catalog.declared.plan import digest, export, plan
from tests.catalog.pictures import START, catalogs, taken


def everything(picture: Picture) -> list[tuple[str, str]]:
    return [(kind, name) for kind, name, _ in picture.named()]


@settings(max_examples=50)
@given(catalogs())
def test_after_the_steps_of_a_plan_nothing_is_left_to_plan(documents: list[Document]) -> None:
    picture = taken(START, plan(START, documents))
    assert plan(picture, documents) == ()


@settings(max_examples=50)
@given(catalogs(), catalogs())
def test_a_catalog_becomes_what_other_documents_say(
    before: list[Document], after: list[Document]
) -> None:
    # Versions and owners in both are the same or missing: what is not said stays.
    picture = taken(START, plan(START, before))
    after = [each.model_copy(update={"versions": None, "aliases": None}) for each in after]
    picture = taken(picture, plan(picture, after))
    assert plan(picture, after) == ()


@settings(max_examples=50)
@given(catalogs())
def test_an_export_is_read_as_it_was_written_and_changes_nothing(
    documents: list[Document],
) -> None:
    picture = taken(START, plan(START, documents))
    exported = export(picture, everything(picture))
    read = parse(write(exported), "export.yaml")
    assert [each.model_dump() for each in read] == [each.model_dump() for each in exported]
    assert plan(picture, read) == ()


@settings(max_examples=50)
@given(catalogs())
def test_an_export_makes_the_same_catalog_elsewhere(documents: list[Document]) -> None:
    picture = taken(START, plan(START, documents))
    exported = export(picture, everything(picture))
    elsewhere = taken(START, plan(START, exported))
    assert export(elsewhere, everything(elsewhere)) == exported


@settings(max_examples=50)
@given(catalogs())
def test_the_same_documents_make_the_same_plan(documents: list[Document]) -> None:
    steps = plan(START, documents)
    assert digest(steps) == digest(plan(START, documents))
