"""What the demo says of personal data, and what it makes of its table of articles."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra import knowledge, support
from infra.bootstrap import ROOT
from infra.demo import ADDRESS, CAREFUL, PERSONAL, masked
from infra.documents.texts import columns_of_text, text_of
from infra.knowledge import ARTICLES, BECOMES, CHANGED, is_as_made, is_changed
from infra.secrets import lend
from infra.stack.local import StackFailed
from infra.stack.processes import SEED
from infra.stack.secret import kept_word
from infra.stack.settings import StackSettings
from schemas.agents import Definition
from schemas.search import Hit
from streams.agents.definition import resolve
from tests.seed import documents, view_of


def row(said: str, **more: Any) -> dict[str, Any]:
    request = json.dumps({"messages": [{"role": "user", "content": said}]})
    found = {"request_id": "r", "reason": None, "request": request, "response": None}
    tokens = {"prompt_tokens": 10, "completion_tokens": 2, "cost": Decimal("0.00000018")}
    return {**found, **tokens, **more}


def test_it_shows_what_the_table_has_and_what_it_cost() -> None:
    said, cost = masked(row("Greet <EMAIL_ADDRESS_1>."))
    assert said == "    Greet <EMAIL_ADDRESS_1>."
    assert cost.startswith("cost: $0.00000018 for 10 + 2 tokens; ")


@pytest.mark.parametrize("column", ["request", "response"])
def test_an_address_that_reached_the_table_fails_it(column: str) -> None:
    text = json.dumps({"messages": [{"content": f"to {ADDRESS}"}]})
    with pytest.raises(StackFailed, match="the row of request r holds"):
        list(masked(row("x", **{column: text})))


def test_a_catalog_from_before_the_endpoint_is_no_failure() -> None:
    [said] = masked(row("x", reason="ENDPOINT_UNKNOWN"))
    assert "tessera reset" in said


def test_what_it_asks_is_in_the_seed() -> None:
    view = view_of(documents(SEED))
    endpoint = view.endpoints[CAREFUL]
    [policy] = endpoint.policies
    assert [rule.type for rule in view.policies[policy].rules] == ["pii", "limit"]
    [route] = endpoint.routes
    assert view.prices(route)
    assert ADDRESS in PERSONAL


COLUMNS = ("id", "title", "body", "topic")


def hit(article: knowledge.Article) -> Hit:
    row = dict(zip(COLUMNS, article, strict=True))
    text = text_of("{title}: {body}", row)
    return Hit(key={"id": row["id"]}, text=text, columns={"topic": row["topic"]})


def changed() -> list[Hit]:
    """All articles as they are after the update, the changed one first."""
    rest = [article for article in ARTICLES if article[0] != CHANGED]
    [(number, title, _, topic)] = [article for article in ARTICLES if article[0] == CHANGED]
    return list(map(hit, [(number, title, BECOMES, topic), *rest]))


def test_articles_are_as_they_were_made_in_whatever_order_they_are_found() -> None:
    found = list(map(hit, ARTICLES))
    assert is_as_made(found)
    assert is_as_made(found[::-1])
    assert not is_changed(found)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([], id="nothing"),
        pytest.param(list(map(hit, ARTICLES[1:])), id="one is missing"),
        pytest.param(list(map(hit, [*ARTICLES, (99, "x", "y", "z")])), id="one too many"),
        pytest.param(list(map(hit, [*ARTICLES[1:], ARTICLES[1]])), id="one twice"),
        pytest.param(changed(), id="one changed"),
        pytest.param(list(map(hit, [(*ARTICLES[0][:3], "z"), *ARTICLES[1:]])), id="another topic"),
    ],
)
def test_a_search_that_finds_anything_else_is_waited_out(found: list[Hit]) -> None:
    assert not is_as_made(found)


def test_the_change_has_come_when_it_is_the_first_that_is_found() -> None:
    first, *rest = changed()
    assert is_changed([first, *rest])
    assert not is_changed([*rest, first])
    assert not is_changed([])


def test_the_articles_are_rows_of_different_keys() -> None:
    assert len({number for number, _, _, _ in ARTICLES}) == len(ARTICLES)
    assert all(body != BECOMES for _, _, body, _ in ARTICLES)


def test_the_catalog_takes_the_connection_and_its_password_can_be_lent(tmp_path: Path) -> None:
    settings = StackSettings(home=tmp_path)
    document = knowledge.connection(settings)
    assert set(view_of([*documents(SEED), document]).connections) == {knowledge.CONNECTION}
    path = knowledge.password_path(settings)
    password = kept_word(path)
    assert lend(document["spec"]["secret"]) == password == kept_word(path)
    assert path.stat().st_mode & 0o077 == 0
    assert password not in json.dumps(document)


def test_what_is_typed_names_what_there_is(tmp_path: Path) -> None:
    typed = {name: words for name, words in knowledge.commands(tmp_path / "it.yaml")}
    assert list(typed) == ["apply", "source", "index"]
    assert knowledge.CONNECTION in typed["source"]
    template = typed["index"][typed["index"].index("--text") + 1]
    assert {*columns_of_text(template), typed["index"][-3]} < set(COLUMNS)
    assert knowledge.ENDPOINT in view_of(documents(SEED)).endpoints


def test_the_readme_shows_what_is_typed(tmp_path: Path) -> None:
    shown = " ".join((ROOT / "README.md").read_text().replace("\\\n", " ").split())
    _, *typed = knowledge.commands(tmp_path / "it.yaml")
    for name, words in typed:
        quoted = (f"'{word}'" if " " in word else word for word in words)
        assert f"tessera {name} {' '.join(quoted)}" in shown
    secret = knowledge.password_path(StackSettings(home=ROOT / ".tessera")).relative_to(ROOT)
    assert f"PGPASSWORD=$(cat {secret})" in shown
    assert f'tessera search {knowledge.INDEX} "{knowledge.QUESTION}"' in shown


def agent(settings: StackSettings) -> Definition:
    """The agent as it is when the demo asks it."""
    view = view_of(
        [
            *documents(SEED),
            knowledge.connection(settings),
            {"kind": "index", "name": knowledge.INDEX, "spec": {"text": "{title}: {body}"}},
            *documents(support.DOCUMENTS),
        ]
    )
    found = resolve(support.AGENT, view.agents[support.AGENT], view)
    assert isinstance(found, Definition)
    return found


def test_its_agent_must_search_and_look_at_the_orders(tmp_path: Path) -> None:
    found = agent(StackSettings(home=tmp_path))
    assert [found.tools[name].kind for name in found.plan] == ["index", "function"]


def test_its_agent_can_look_up_and_name_the_orders_that_there_are(tmp_path: Path) -> None:
    found = agent(StackSettings(home=tmp_path))
    assert found.output is not None
    looked_up = found.tools[found.plan[1]].parameters["properties"]["order"]["enum"]
    named = found.output["properties"]["article"]["enum"]
    assert looked_up == [number for number, *_ in support.ORDERS]
    assert named == [article for _, _, article, *_ in support.ORDERS]
