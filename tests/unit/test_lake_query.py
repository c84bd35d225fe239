"""Questions to the lake: they find what is there, and only read."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from infra.lake import QueryInvalid, query
from tests.unit.lakes import NOON, data_files, opened, row


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    table = opened(tmp_path / "lake")
    table.append([row("a", 0), row("b", 1, at=NOON + timedelta(days=1))])
    return tmp_path / "lake"


def test_a_question_reads_only_the_files_and_columns_it_needs(lake: Path) -> None:
    [plan] = query(
        lake, "EXPLAIN SELECT tenant FROM inferences WHERE date = '2026-03-01' AND request_id = 'a'"
    )["explain_value"].to_pylist()
    assert "Projections: tenant" in plan
    assert "Filters:" in plan
    data_files(lake)[1].unlink()
    found = query(lake, "SELECT request_id FROM inferences WHERE date = DATE '2026-03-01'")
    assert found.to_pylist() == [{"request_id": "a"}]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("python_enable_replacements", False), ("temp_directory", ""), ("TimeZone", "UTC")],
)
def test_an_answer_depends_on_nothing_around_it(lake: Path, setting: str, value: object) -> None:
    [found] = query(lake, f"SELECT current_setting('{setting}') AS value").to_pylist()
    assert found == {"value": value}


def test_a_value_is_bound_and_never_read_as_sql(lake: Path) -> None:
    sql = "SELECT request_id FROM inferences WHERE request_id = $key"
    assert query(lake, sql, {"key": "a"}).to_pylist() == [{"request_id": "a"}]
    assert query(lake, sql, {"key": "a' OR 'a' = 'a"}).to_pylist() == []
    with pytest.raises(QueryInvalid, match="key"):
        query(lake, sql, {})


def test_wrong_sql_is_told_in_duckdbs_words(lake: Path) -> None:
    with pytest.raises(QueryInvalid, match='syntax error at or near "SELEC"'):
        query(lake, "SELEC 1")
    with pytest.raises(QueryInvalid, match="prompt_token"):
        query(lake, "SELECT prompt_token FROM inferences")


def test_an_unknown_table_is_answered_with_the_known_ones(lake: Path) -> None:
    with pytest.raises(QueryInvalid, match="The tables of the lake: inferences"):
        query(lake, "FROM inference")


@pytest.mark.parametrize("made", [True, False])
def test_an_empty_lake_says_that_it_is_empty(tmp_path: Path, made: bool) -> None:
    root = tmp_path if made else tmp_path / "none"
    with pytest.raises(QueryInvalid, match="no table"):
        query(root, "FROM inferences")


def test_a_table_whose_writer_ended_before_its_first_event_is_none(lake: Path) -> None:
    (lake / "audits" / "_delta_log").mkdir(parents=True)
    assert query(lake, "FROM inferences").num_rows
    with pytest.raises(QueryInvalid, match=r"The tables of the lake: inferences"):
        query(lake, "FROM audits")


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "ATTACH ':memory:' AS other",
        "ATTACH 'other.db'",
        "CALL pragma_version()",
        "COPY inferences TO 'out.csv'",
        "CREATE TABLE mine AS FROM inferences",
        "EXPLAIN ANALYZE COPY inferences TO 'out.csv'",
        "EXPORT DATABASE 'out'",
        "FROM '/etc/passwd'",
        "FROM glob('/etc/*')",
        "FROM parquet_scan('**/*.parquet')",
        "FROM query('COPY inferences TO ''out.csv''')",
        "FROM read_blob('/etc/passwd')",
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/etc/passwd')",
        "FROM sniff_csv('/etc/passwd')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA enable_profiling",
        "SELECT 1; COPY inferences TO 'out.csv'",
        "SELECT 1; SELECT 2",
        "SET enable_external_access = true",
    ],
)
def test_a_question_can_only_read_the_lake(
    lake: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lake.parent)
    before = sorted(lake.parent.rglob("*"))
    with pytest.raises(QueryInvalid):
        query(lake, sql)
    assert sorted(lake.parent.rglob("*")) == before
