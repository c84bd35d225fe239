"""The stacks that tests run on: real services, their own home and ports, gone at the end.

And what several folders of tests share that asks on the bus: the bus of the session, provisioned,
and the processes on it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from infra.stack.local import LocalStack, free_ports
from infra.stack.services import FOUNDATION
from tests.harness import CALM_SESSION_MS, PATIENCE_S, Bus, Process
from tests.harness import running as running_process
from tests.seed import documents, seed

CATALOG = documents(Path(__file__).with_name("catalog.yaml"))

# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("search", deadline=None)
# The same examples each time, so that a change alone makes a difference; others are searched for
# with --hypothesis-profile=search.
settings.register_profile("tessera", deadline=None, derandomize=True)
settings.load_profile("tessera")
# Else it draws what stands in the modules that are loaded, which tests before decide.
LOCAL = "hypothesis.internal.conjecture.providers.is_local_module_file"
pytest.MonkeyPatch().setattr(LOCAL, lambda path: False)

# Services that many tests share; there is one of each in a process of pytest-xdist that needs it.
SHARED = ("full_stack", "index_stack", "stack", "vector_stack")
SERVICES = ("model", "stack")


# Before pytest-xdist looks for the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps together what shares services, and else files.

    Groups are handed out in the order of their first items: what needs no service is short, and
    fills the gaps at the end.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_turn)


# After fixtures of smaller scopes have ended.
@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ends with a group the services that it shared: kept, they would take from all others."""
    if nextitem is None or _group(item) == _group(nextitem):
        return
    assert isinstance(item, pytest.Function)
    # Also their folder: a table there knows how far it has read the topics of its stack.
    for name in (*SHARED, "folder"):
        for fixture in item.session._fixturemanager.getfixturedefs(name, item) or ():
            fixture.finish(item._request)  # type: ignore[arg-type]


def _group(item: pytest.Item) -> str:
    shared = _shared(item)
    # Half of all the time: as one group it would keep a process busy when all others are idle.
    if shared == "stack":
        return f"stack of {item.path.parent.name}"
    return shared or item.location[0]


def _turn(item: pytest.Item) -> int:
    if _shared(item):
        return 0
    return 1 if any(item.get_closest_marker(each) for each in SERVICES) else 2


def _shared(item: pytest.Item) -> str | None:
    assert isinstance(item, pytest.Function)
    return next((name for name in SHARED if name in item.fixturenames), None)


@contextmanager
def running(only: Iterable[str]) -> Iterator[LocalStack]:
    """A fresh stack that ends with the block, or with this process if that is killed."""
    home = Path(tempfile.mkdtemp(prefix="tessera-"))
    # PostgreSQL runs as another user and must get through.
    home.chmod(0o755)
    stack = LocalStack(free_ports(home))
    try:
        stack.up(only)
        yield stack
    finally:
        stack.down()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """Kafka and the schema registry; whoever harms them must leave them ready."""
    with running(["kafka", "registry"]) as stack:
        yield stack


@pytest.fixture(scope="session")
def full_stack() -> Iterator[LocalStack]:
    """Everything that is not ours: also Connect, PostgreSQL, Redis and Weaviate."""
    with running(FOUNDATION) as stack:
        yield stack


@pytest.fixture(scope="session")
def vector_stack() -> Iterator[LocalStack]:
    """Weaviate; whoever harms it must leave it ready."""
    with running(["weaviate"]) as stack:
        yield stack


@pytest.fixture(scope="session")
def bus(stack: LocalStack) -> Bus:
    """The broker and the registry with every topic and schema of the tests' catalog."""
    bus = Bus(stack, CALM_SESSION_MS)
    seed(bus, CATALOG)
    return bus


@pytest.fixture
def insistent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has whoever asks here wait for as long as it takes to hear that a deadline has passed."""
    monkeypatch.setattr("infra.asker.GRACE_S", PATIENCE_S)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's processes keep logs and tables."""
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="session")
def gateway(bus: Bus, folder: Path) -> Iterator[Process]:
    """The gateway of the session."""
    with running_process(bus, ["-m", "streams", "gateway"], folder) as process:
        yield process


@pytest.fixture(scope="session")
def echo(bus: Bus, folder: Path) -> Iterator[Process]:
    """An inference worker of the pool ``echo`` that repeats what it is told."""
    command = ["-m", "workers", "inference", "--provider", "echo", "--pool", "echo"]
    with running_process(bus, command, folder) as process:
        yield process


@pytest.fixture(scope="session")
def recorder(bus: Bus, folder: Path) -> Iterator[Process]:
    """The recorder of the session; its lake lies in the session's folder."""
    with running_process(bus, ["-m", "streams", "recorder"], folder) as process:
        yield process
