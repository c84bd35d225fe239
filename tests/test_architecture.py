"""The policy of this repository, kept by machine. Each rule says in its failure what to do."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap import ROOT, python_of
from schemas.avro import AVSC, definitions
from schemas.topics import TOPICS

PACKAGES = ("catalog", "infra", "schemas", "streams", "workers")

# Whom each package may import of ours. The three at the top meet on the bus, never in code.
MAY_IMPORT: dict[str, set[str]] = {
    "catalog": {"infra", "schemas"},
    "infra": {"schemas"},
    "schemas": set(),
    "streams": {"infra", "schemas"},
    "workers": {"infra", "schemas"},
}

# Where a library may be imported: a file, or a folder with a slash behind it.
FENCES: dict[str, tuple[str, ...]] = {
    "alembic": ("catalog/",),
    "celery": ("workers/jobs.py", "workers/tools/queue.py"),
    "deltalake": ("infra/lake.py",),
    "faust": ("streams/__main__.py", "streams/group.py"),
    "mcp": ("infra/mcp/",),
    "mcp_types": ("infra/mcp/",),
    "openlineage": ("catalog/lineage/openlineage.py",),
    "redis": ("infra/embedding.py",),
    "sqlalchemy": ("catalog/", "infra/sql.py"),
    "sqlglot": ("infra/conditions/sql.py",),
    "sqlmodel": ("catalog/", "infra/sql.py"),
    "torch": ("workers/",),
    "transformers": ("workers/",),
    "vllm": ("workers/providers/vllm.py",),
    "weaviate": ("infra/vectors/",),
}

READS_ENVIRONMENT = ("infra/secrets.py", "infra/settings.py", "infra/stack/settings.py")

# Options of a library, and colours from good to bad: nobody adds a line to these.
NO_TABLES = frozenset({"COLOURS", "PASS_ON"})

BANNED = frozenset({"base", "common", "do", "handler", "helper", "manager", "misc", "util"})
# http.server finds these by name.
GIVEN_NAMES = frozenset({"do_DELETE", "do_GET", "do_HEAD", "do_POST", "do_PUT"})

HEADINGS = [
    "What it is",
    "What it knows and does not know",
    "Map",
    "How to add one",
    "How to run and test it alone",
]

MOST_LINES = 400
GENERATED = "schemas/events.py"

# Assembled, so that this file names none of them itself.
HOSTS = (
    "crates io, files pythonhosted org, proxy golang org, pypi org, registry npmjs org, "
    "repo maven apache org, repo1 maven org, rubygems org"
)
INDEX_HOSTS = tuple(HOSTS.replace(" ", ".").split(",."))

# What workers use of infra/ must import in their environment; this is for the service alone.
SERVICE_ONLY = (
    "infra.audit",
    "infra.cli",
    "infra.changes",
    "infra.columns",
    "infra.conditions",
    "infra.connectors",
    "infra.delegates",
    "infra.demo",
    "infra.documents",
    "infra.embedding",
    "infra.figures",
    "infra.keymemory",
    "infra.knowledge",
    "infra.lake",
    "infra.mcp.",
    "infra.meter",
    "infra.proof",
    "infra.screen",
    "infra.sql",
    "infra.stack.",
    "infra.support",
    "infra.usage",
    "infra.vectors",
)


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the product or of its tests."""

    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def imports(self) -> Iterator[str]:
        """Yields the full names of what it imports, also inside functions."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: write the import in full"
                yield str(node.module)


def tracked() -> list[str]:
    """Returns the paths of all files that are, or would be, in the repository."""
    listed = subprocess.run(
        # A clone may be another user's, as in a container.
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    return sorted({path for path in listed.stdout.splitlines() if (ROOT / path).is_file()})


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in tracked():
        if path.endswith(".py"):
            text = (ROOT / path).read_text()
            found.append(Module(path, text, ast.parse(text, path)))
    return tuple(found)


def product() -> Iterator[Module]:
    yield from (module for module in modules() if module.package in PACKAGES)


def test_packages_import_only_what_lies_below_them() -> None:
    wrong = [
        f"{module.path} imports {name}"
        for module in product()
        for name in module.imports()
        if (top := name.partition(".")[0]) in {*PACKAGES, "tests"} - {module.package}
        and top not in MAY_IMPORT[module.package]
    ]
    assert wrong == []


def test_each_library_stays_behind_its_fence() -> None:
    wrong = [
        f"{module.path} imports {name}: only {' and '.join(FENCES[top])} may"
        for module in product()
        for name in module.imports()
        if (top := name.partition(".")[0]) in FENCES
        and not any(
            module.path == fence or (fence.endswith("/") and module.path.startswith(fence))
            for fence in FENCES[top]
        )
    ]
    assert wrong == []


def test_a_topics_name_is_written_once() -> None:
    names = re.compile("|".join(re.escape(topic.name) for topic in TOPICS))
    wrong = [
        f"{module.path}:{node.lineno}: {node.value!r}: use schemas.topics"
        for module in product()
        if module.path != "schemas/topics.py"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and names.search(node.value)
    ]
    assert wrong == []


def test_the_environment_is_read_at_the_entry_and_nowhere_else() -> None:
    wrong = [
        f"{module.path}:{node.lineno}: pass settings down instead"
        for module in product()
        if not module.path.endswith("/__main__.py") and module.path not in READS_ENVIRONMENT
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {alias.name for alias in node.names} & {"environ", "environb", "getenv"}
        )
    ]
    assert wrong == []


def test_no_file_is_too_long_to_be_read_in_one_go() -> None:
    lines = {module.path: module.text.count("\n") for module in modules()}
    assert [path for path in lines if lines[path] > MOST_LINES and path != GENERATED] == []


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def test_names_name_the_thing() -> None:
    wrong = []
    for module in product():
        names = [(module.name.rpartition(".")[2], 1)]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.append((node.name, node.lineno))
        wrong += [
            f"{module.path}:{line}: {name}"
            for name, line in names
            if name not in GIVEN_NAMES
            and {word.removesuffix("s") for word in _words(name)} & BANNED
        ]
    assert wrong == []


def _tables(module: Module) -> Iterator[tuple[str, ast.Dict]]:
    for node in module.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
                yield target.id, value


def test_tables_stand_in_alphabetical_order() -> None:
    wrong = []
    for module in product():
        if module.path == GENERATED:
            continue
        for name, table in _tables(module):
            keys = [ast.unparse(key) for key in table.keys if key is not None]
            if name.isupper() and name not in NO_TABLES and keys != sorted(keys):
                wrong.append(f"{module.path}: {name}")
    assert wrong == []


def _undocumented(schema: Any, where: str) -> Iterator[str]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _undocumented(branch, where)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum") and not schema.get("doc"):
            yield f"{where}: {schema['name']}"
        for field in schema.get("fields", ()):
            place = f"{where}: {schema['name']}.{field['name']}"
            if len(field.get("doc", "")) < 2:
                yield place
            yield from _undocumented(field["type"], place)
        for key in ("items", "values"):
            yield from _undocumented(schema.get(key), where)


def test_every_type_and_field_of_the_contract_is_documented() -> None:
    assert list(definitions())
    wrong = [
        place for name, schema in definitions(AVSC).items() for place in _undocumented(schema, name)
    ]
    assert wrong == []


def test_no_package_index_is_named() -> None:
    wrong = [
        f"{path}: {host}"
        for path in tracked()
        for host in INDEX_HOSTS
        if host.encode() in (ROOT / path).read_bytes()
    ]
    assert wrong == []


def folders() -> list[str]:
    """Returns the packages that hold more than their own name."""
    return sorted(
        {module.package for module in product() if module.path != f"{module.package}/__init__.py"}
    )


@pytest.mark.parametrize("folder", [*folders(), "catalog", "tests"])
def test_each_folder_tells_what_it_is_in_one_screen(folder: str) -> None:
    readme = ROOT / folder / "README.md"
    assert readme.exists(), f"{folder}/README.md is missing"
    text = readme.read_text()
    assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS
    assert text.startswith(f"# {folder}\n")
    assert text.count("\n") <= 100


def _entries(folder: str) -> Iterator[str]:
    """Yields what a map must name: files, those of subpackages too, and other folders as such."""
    others = set()
    for path in tracked():
        top, _, inner = path.partition("/")
        name = inner.rpartition("/")[2]
        if top != folder or name in ("README.md", "__init__.py"):
            continue
        if name == inner or (folder in PACKAGES and name.endswith(".py")):
            yield name
        else:
            others.add(f"{inner.partition('/')[0]}/")
    yield from others


@pytest.mark.parametrize("folder", [*folders(), "catalog", "tests"])
def test_the_map_of_a_folder_names_its_files(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    drawn = text.partition("## Map\n")[2].partition("\n## ")[0]
    lacks = {
        name
        for name, files in Counter(_entries(folder)).items()
        if len(re.findall(rf"(?<!\w){re.escape(name)}", drawn)) < files
    }
    assert lacks == set()


def _run(
    *command: str, python: str | Path = sys.executable, timeout: float = 300, **more: str
) -> str:
    """Runs ``python`` in the root of the repository; what it says is the failure."""
    ran = subprocess.run(
        [str(python), *command],
        cwd=ROOT,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_generated_events_are_fresh() -> None:
    _run("-m", "schemas.generate", "--check")


def test_ruff_finds_nothing() -> None:
    _run("-m", "ruff", "check", ".")


def test_everything_is_formatted() -> None:
    _run("-m", "ruff", "format", "--check", ".")


@pytest.mark.timeout(1260)
def test_mypy_finds_nothing() -> None:
    _run("-m", "mypy", ".", timeout=1200)


@pytest.mark.parametrize("module", ["streams.gateway", "streams.__main__", "streams.client"])
def test_a_stream_process_never_loads_torch(module: str, tmp_path: Path) -> None:
    # Stand where the real ones would, so that an import is seen even where they are not installed.
    heavy = [name for name in FENCES if FENCES[name][0].startswith("workers/")]
    for name in heavy:
        (tmp_path / f"{name}.py").touch()
    script = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert _run("-c", script, PYTHONPATH=f"{tmp_path}:{ROOT}").strip() == "[]"


def test_workers_import_schemas_and_their_part_of_infra_without_the_services_packages() -> None:
    names = [
        module.name
        for module in product()
        if module.package in {"infra", "schemas"}
        and not module.path.endswith("__main__.py")
        and not module.name.startswith(SERVICE_ONLY)
    ]
    assert {"infra.bus", "infra.health", "infra.registry", "schemas.codec"} <= set(names)
    script = "import importlib, sys\n" + "\n".join(
        f"importlib.import_module({name!r})" for name in [*names, "workers.__main__"]
    )
    script += "\nprint([name for name in ('faust', 'torch') if name in sys.modules])"
    assert _run("-c", script, python=python_of("worker"), PYTHONPATH=str(ROOT)).strip() == "[]"
