"""The catalog file: what it becomes, and where its mistakes are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.bootstrap import ROOT
from infra.catalog import CatalogInvalid, load
from schemas.events import Route

LIMITS = "[limits]\nmax_request_bytes = 1000\nmax_deadline_ms = 60000\n"
ENDPOINT = """
[endpoints."main.tests.chat"]
routes = [
    { name = "first", pool = "large", model = "big" },
    { name = "second", pool = "edge", model = "small" },
]
output_policy = true
"""
TENANT = '[tenants.acme]\nreplies = ["acme", "acme-2"]\n'
WHOLE = LIMITS + ENDPOINT + TENANT


def written(folder: Path, text: str) -> Path:
    path = folder / "catalog.toml"
    path.write_text(text)
    return path


def test_a_catalog_is_read_as_it_is_written(tmp_path: Path) -> None:
    view = load(written(tmp_path, WHOLE))
    endpoint = view.endpoints["main.tests.chat"]
    assert endpoint.name == "main.tests.chat"
    assert endpoint.routes == (
        Route(name="first", pool="large", model="big"),
        Route(name="second", pool="edge", model="small"),
    )
    assert endpoint.output_policy is True
    assert view.tenants["acme"].reply_topics == ("reply.v1.acme", "reply.v1.acme-2")
    assert (view.limits.max_request_bytes, view.limits.max_deadline_ms) == (1000, 60000)
    assert view.pools == ("edge", "large")


def test_parts_go_straight_to_the_caller_where_the_file_says_nothing_else(tmp_path: Path) -> None:
    view = load(written(tmp_path, WHOLE.replace("output_policy = true", "")))
    assert view.endpoints["main.tests.chat"].output_policy is False


@pytest.mark.parametrize("path", ["infra/catalog.toml", "tests/broker/catalog.toml"])
def test_the_catalogs_of_the_repository_are_valid(path: str) -> None:
    assert load(ROOT / path).tenants


# What is wrong, and where it is said to be.
WRONG: dict[str, tuple[str, str]] = {
    "a deadline beyond what replies outlive": (
        WHOLE.replace("60000", "3600001"),
        r"limits\.max_deadline_ms: .*less than or equal to 3600000",
    ),
    "a limit that is text": (
        WHOLE.replace("1000", '"many"'),
        r"limits\.max_request_bytes: ",
    ),
    "a limit that rows could not hold": (
        WHOLE.replace("1000", "16777216"),
        r"limits\.max_request_bytes: ",
    ),
    "a negative limit": (WHOLE.replace("1000", "-1"), r"limits\.max_request_bytes: "),
    "a pool that is no topic": (
        WHOLE.replace('pool = "edge"', 'pool = "the edge"'),
        r"endpoints\.main\.tests\.chat\.routes\.1\.pool: ",
    ),
    "a reply that is no topic": (
        WHOLE.replace("acme-2", "acme.2"),
        r"tenants\.acme\.replies\.1: ",
    ),
    "a reply topic of two tenants": (
        WHOLE + '[tenants.other]\nreplies = ["acme"]\n',
        r"tenants\.other\.replies: acme is acme's already",
    ),
    "a route without a model": (
        WHOLE.replace(', model = "big"', ""),
        r"endpoints\.main\.tests\.chat\.routes\.0\.model: Field required",
    ),
    "a setting that nobody knows": (
        WHOLE.replace("output_policy", "output_polity"),
        r"endpoints\.main\.tests\.chat\.output_polity: Extra inputs",
    ),
    "a table that nobody knows": (WHOLE + "[modles]\n", r"modles: Extra inputs"),
    "a tenant without replies": (
        LIMITS + ENDPOINT + "[tenants.acme]\nreplies = []\n",
        r"tenants\.acme\.replies: ",
    ),
    "an endpoint of one level": (
        WHOLE.replace("main.tests.chat", "chat"),
        r"endpoints\.chat.*: ",
    ),
    "an endpoint without routes": (
        LIMITS + TENANT + '[endpoints."main.tests.chat"]\nroutes = []\n',
        r"endpoints\.main\.tests\.chat\.routes: ",
    ),
    "no TOML": ("[limits\n", r"line 1"),
    "no limits": (ENDPOINT + TENANT, r"limits: Field required"),
    "nothing": ("", r"endpoints: Field required; limits: Field required; tenants: Field required"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_is_named_with_its_file_and_place(what: str, tmp_path: Path) -> None:
    text, place = WRONG[what]
    path = written(tmp_path, text)
    with pytest.raises(CatalogInvalid, match=place) as problem:
        load(path)
    assert str(problem.value).startswith(f"{path}: ")


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    text = WHOLE.replace("1000", "0").replace("60000", "0")
    with pytest.raises(CatalogInvalid, match=r"max_request_bytes.*; .*max_deadline_ms"):
        load(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogInvalid, match=r"nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml")


def test_a_folder_is_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(CatalogInvalid, match="directory"):
        load(tmp_path)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_bytes(WHOLE.replace("big", "gro\u00df").encode("latin-1"))
    with pytest.raises(CatalogInvalid, match=r"catalog\.toml: .*utf-8"):
        load(path)
