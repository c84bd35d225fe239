"""The operator's command line, as a process, with a registrar that answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from catalog.operator.cli import app
from infra.settings import PostgresSettings
from infra.signing import Signer
from tests.catalog.towns import Town, begun
from tests.harness import Bus

LAB = """\
# What the lab tries.
kind: schema
name: main.lab
comment: Trials
---
kind: endpoint
name: main.lab.ask
spec:
  routes:
    - name: local
      pool: echo
      model: echo
grants:
  everyone: [QUERY]
"""


@pytest.fixture
def town(bus: Bus, postgres: PostgresSettings, tmp_path: Path) -> Town:
    return begun(bus, postgres, tmp_path)


@pytest.mark.stack
def test_an_operator_makes_grants_and_finds(town: Town) -> None:
    with town.registrar():
        spec = town.folder / "ask.json"
        spec.write_text('{"routes": [{"name": "local", "pool": "echo", "model": "echo"}]}')
        name = "main.default.ask"
        made = town.run("catalog", "create", "endpoint", name, "--spec", f"@{spec}", "--tag", "a=b")
        assert made.returncode == 0, made.stderr
        listed = town.run("catalog", "list", "main.default", "--kind", "endpoint")
        assert [line.split() for line in listed.stdout.splitlines()[1:]] == [
            ["endpoint", name, "operator", "a=b"]
        ]
        user = json.dumps({"tenant": town.tenant})
        assert town.run("catalog", "create", "user", "alice", "--spec", user).returncode == 0
        granted = town.run("grant", "query,use", "on", "main", "to", "alice", "--json")
        assert json.loads(granted.stdout)["allow"] == ["QUERY", "USE"]
        also = town.run("deny", "BROWSE", "on", "main", "to", "alice")
        assert also.stdout == "on main alice is now granted QUERY, USE and denied BROWSE\n"
        assert town.run("revoke", "BROWSE", "on", "main", "from", "alice").returncode == 0
        told = town.run("effective", "alice", name)
        [line] = [each for each in told.stdout.splitlines() if each.startswith("QUERY")]
        assert line.rstrip().split(maxsplit=2)[1:] == ["yes", "QUERY on main is granted to alice"]
        taken = town.run("revoke", "QUERY", "on", "main", "from", "alice", "--json")
        assert json.loads(taken.stdout)["allow"] == ["USE"]

        pem = town.folder / "alice.pem"
        created = town.run("key", "create", "--principal", "alice", "--out", str(pem), "--json")
        key = json.loads(created.stdout)
        assert key["key_id"] == Signer(pem.read_text()).key_id
        assert pem.stat().st_mode & 0o777 == 0o600
        again = town.run("key", "create", "--principal", "alice", "--out", str(pem))
        assert again.returncode == 1
        assert "is there already and is not overwritten" in again.stderr
        as_alice = {"CLIENT_KEY": f"file:{pem}"}
        refused = town.run("catalog", "create", "catalog", "own", **as_alice)
        assert refused.returncode == 1
        assert "PRIVILEGE_MISSING: CREATE on * is missing" in refused.stderr
        assert "Traceback" not in refused.stderr
        following = town.folder / "next.pem"
        rotated = town.run("key", "rotate", "--out", str(following), "--overlap", "0s", **as_alice)
        assert rotated.returncode == 0, rotated.stderr
        assert "KEY_REVOKED" in town.run("catalog", "list", **as_alice).stderr
        as_alice = {"CLIENT_KEY": f"file:{following}"}
        assert town.run("catalog", "list", **as_alice).returncode == 0


@pytest.mark.stack
def test_files_are_planned_applied_once_and_exported(town: Town) -> None:
    with town.registrar():
        file = town.folder / "lab.yaml"
        file.write_text(LAB)
        tried = town.run("apply", "-f", str(file), "--dry-run")
        assert tried.stdout.splitlines()[0] == "+ schema main.lab"
        assert "applied" not in tried.stdout
        applied = town.run("apply", "-f", str(file), "--yes")
        assert "applied: 3 changes" in applied.stdout, applied.stderr
        assert town.run("apply", "-f", str(file)).stdout == "nothing to do\n"

        file.write_text(LAB.replace("Trials", "Tests").replace("pool: echo", "pool: other"))
        differs = town.run("apply", "-f", str(file), "--dry-run").stdout
        assert '    comment: "Trials" -> "Tests"' in differs
        assert '"pool": "other"' in differs
        unasked = town.run("apply", "-f", str(file))
        assert unasked.returncode != 0
        assert json.loads(town.run("catalog", "get", "main.lab", "--json").stdout)["comment"] == (
            "Trials"
        )

        exported = town.folder / "export.yaml"
        exported.write_text(town.run("export").stdout)
        assert town.run("apply", "-f", str(exported)).stdout == "nothing to do\n"

        file.write_text(LAB.replace("everyone", "evryone"))
        wrong = town.run("apply", "-f", str(file))
        assert wrong.returncode == 1
        assert f"{file}:14:3: grants.evryone: there is no evryone" in wrong.stderr
        file.write_text(LAB.replace("pool: echo", "pool: echo\n      entity: main.lab.gone@1"))
        missing = town.run("apply", "-f", str(file)).stderr
        assert f"{file}:8:1: spec: there is no main.lab.gone" in missing


runner = CliRunner()

HELP = (
    (),
    ("apply",),
    ("catalog",),
    ("catalog", "create"),
    ("catalog", "tag"),
    ("catalog", "version", "add"),
    ("deny",),
    ("effective",),
    ("export",),
    ("grant",),
    ("key",),
    ("key", "rotate"),
    ("revoke",),
)


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_teaches_by_example(words: tuple[str, ...]) -> None:
    shown = runner.invoke(app, [*words, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert "tessera " in shown.output


CONNECTION = '{"type": "openai", "url": "https://models.example", "secret": "sk-REAL"}'
UNCLEAR: dict[str, tuple[tuple[str, ...], str]] = {
    "a date": (
        ("key", "create", "--principal", "a", "--out", "unused.pem", "--expires", "soon"),
        "soon is no instant; write 90d",
    ),
    "a file": (
        ("apply", "-f", "nowhere.yaml"),
        "nowhere.yaml cannot be read: No such file or directory\n",
    ),
    "a line of a file": (("apply", "-f", "{folder}/x.yaml"), "x.yaml:2:1: nam: there is no field"),
    "a number": (("catalog", "alias", "set", "a.b.c", "prod"), "prod needs the number"),
    "a word between": (
        ("grant", "USE", "in", "main", "to", "a"),
        "say grant PRIVILEGE[,..] on NAME to PRINCIPAL, for example: tessera grant QUERY on",
    ),
    "a word left out": (
        ("revoke", "USE", "main", "a"),
        "revoke USE main a: say revoke PRIVILEGE[,..] on NAME from PRINCIPAL, for example: ",
    ),
    "a secret": (
        ("catalog", "create", "connection", "a.b.c", "--spec", CONNECTION),
        "spec.secret: this is a reference: env:NAME, file:PATH or",
    ),
    "JSON": (
        ("catalog", "create", "catalog", "a", "--spec", "{x"),
        "--spec, line 1, column 2: this is no JSON",
    ),
    "no tags": (("catalog", "tag", "a"), "say NAME=VALUE to set or --unset"),
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_what_is_unclear_is_said_before_anybody_is_asked(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("kind: catalog\nnam: x\n")
    words, message = UNCLEAR[what]
    with pytest.raises(SystemExit) as ended:
        app(args=[word.replace("{folder}", str(tmp_path)) for word in words], prog_name="tessera")
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "unused.pem").exists()
