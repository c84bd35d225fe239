"""The parts of the local stack that need no service."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from infra.artifacts import ARTIFACTS
from infra.bootstrap import ROOT
from infra.models import CARRIED, PACKAGES
from infra.provision import EARLY
from infra.secrets import resolve
from infra.settings import InferenceSettings, LakeSettings
from infra.signing import Signer
from infra.stack import control, kafka, postgres, state
from infra.stack.local import LocalStack, free_ports
from infra.stack.places import OPERATOR, TENANT
from infra.stack.processes import SEED
from infra.stack.secret import key_path, secret, secret_path
from infra.stack.service import Probe, Service, http_ok, is_free, lake_folder
from infra.stack.services import FOUNDATION, SERVICES, build, closure
from infra.stack.settings import StackSettings
from infra.stack.state import GOOD, State, Status
from infra.stack.unit import Unit
from infra.stack.workers import EMBEDDER, MODEL
from schemas.topics import INFERENCE_ROUTED

HERE = StackSettings(home=Path("/nowhere"))


def test_the_table_is_in_alphabetical_order_and_names_its_services() -> None:
    assert list(SERVICES) == sorted(SERVICES)
    assert list(ARTIFACTS) == sorted(ARTIFACTS)
    assert [service.name for service in build(HERE).values()] == list(SERVICES)
    assert set(FOUNDATION) < set(SERVICES)


def test_every_service_names_what_exists() -> None:
    for service in build(HERE).values():
        assert set(service.depends_on) <= set(SERVICES)
        assert set(service.artifacts) <= set(ARTIFACTS)


def test_everybody_finds_the_lake_where_it_was_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = StackSettings(home=tmp_path)
    assert lake_folder(home) == tmp_path / "lake"
    monkeypatch.setenv("LAKE_ROOT", str(tmp_path / "elsewhere"))
    settings = StackSettings(home=tmp_path)
    stack = LocalStack(settings)
    assert stack.lake == tmp_path / "elsewhere" == LakeSettings().root
    assert stack.environment()["LAKE_ROOT"] == str(stack.lake)
    assert stack.lake in stack.data_folders()
    assert LocalStack(free_ports(tmp_path)).lake == tmp_path / "lake"


def test_building_the_table_writes_nothing(tmp_path: Path) -> None:
    build(StackSettings(home=tmp_path / "home"))
    assert not (tmp_path / "home").exists()


def test_no_two_services_share_a_port() -> None:
    ports = [value for name, value in HERE.model_dump().items() if name.endswith("_port")]
    ports += [HERE.weaviate_gossip_port + 1, HERE.weaviate_raft_port + 1]
    assert len(ports) == len(set(ports))


def test_free_ports_are_distinct_and_leave_room_above(tmp_path: Path) -> None:
    settings = free_ports(tmp_path)
    ports = [value for name, value in settings.model_dump().items() if name.endswith("_port")]
    assert len({*ports, *(port + 1 for port in ports)}) == 2 * len(ports)
    assert settings.home == tmp_path


def test_what_a_service_depends_on_comes_first() -> None:
    order = closure(["recorder"], build(HERE))
    assert order == ["kafka", "registry", "provision", "recorder"]


def test_the_pool_that_is_served_from_the_start_has_its_topic_by_then() -> None:
    outside = build(HERE)["outside"]
    pool = outside.command[outside.command.index("--pool") + 1]
    assert INFERENCE_ROUTED.member(pool).name in {topic.name for topic in EARLY}
    assert "provision" in closure(["outside"], build(HERE))
    assert not outside.needs_worker


def test_an_unknown_service_is_no_service() -> None:
    with pytest.raises(KeyError, match="kafa"):
        closure(["kafa"], build(HERE))


def test_a_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    settings = StackSettings(home=tmp_path)
    assert secret("one", settings) == secret("one", settings) != secret("two", settings)
    assert stat.S_IMODE(secret_path("one", settings).stat().st_mode) == 0o600


def test_the_operators_key_is_made_once_and_only_the_owner_may_read_it(tmp_path: Path) -> None:
    settings = StackSettings(home=tmp_path)
    catalog = build(settings)["catalog"]
    catalog.prepare()
    place = LocalStack(settings).environment()["CLIENT_KEY"]
    first = Signer(resolve(place)).key_id
    catalog.prepare()
    assert Signer(resolve(place)).key_id == first
    assert catalog.environment["CATALOG_FIRST_KEY"] == place
    assert stat.S_IMODE(key_path(OPERATOR, settings).stat().st_mode) == 0o600


def test_whoever_says_who_asks_is_believed(tmp_path: Path) -> None:
    own = {"CLIENT_PRINCIPAL": "alice", "CLIENT_KEY": "file:/home/alice/key.pem"}
    operator = LocalStack(StackSettings(home=tmp_path, inherited={})).environment()
    assert operator["CLIENT_PRINCIPAL"] == OPERATOR
    environment = LocalStack(StackSettings(home=tmp_path, inherited=own)).environment()
    asked = {name: environment[name] for name in environment if name.startswith("CLIENT_")}
    assert asked == own


def test_the_seed_holds_whom_the_stack_asks_as_and_what_its_worker_serves() -> None:
    seed = {(each["kind"], each["name"]): each for each in yaml.safe_load_all(SEED.read_text())}
    assert seed["service_principal", OPERATOR]["spec"] == {"tenant": TENANT}
    assert ("tenant", TENANT) in seed
    [route] = seed["endpoint", "main.default.smollm2"]["spec"]["routes"]
    served = InferenceSettings()
    assert (route["pool"], route["model"]) == (served.pool, served.model_name)
    model, _, number = route["entity"].partition("@")
    [version] = seed["model", model]["versions"]
    assert number == "1"
    assert version["spec"]["uri"] == f"package:{PACKAGES[MODEL].replace('_', '-')}"


def test_the_seed_holds_what_embeds() -> None:
    seed = {(each["kind"], each["name"]): each for each in yaml.safe_load_all(SEED.read_text())}
    [route] = seed["endpoint", "main.default.minilm"]["spec"]["routes"]
    service = build(HERE)["embedding"]
    assert service.needs_worker
    assert route["pool"] == service.command[service.command.index("--pool") + 1]
    assert route["model"] == EMBEDDER == service.environment["INFERENCE_MODEL_NAME"]
    assert service.environment["INFERENCE_MODEL"] == f"package:{CARRIED[EMBEDDER]}"
    model, _, number = route["entity"].partition("@")
    assert (seed["model", model]["spec"]["task"], number) == ("embedding", "1")
    [version] = seed["model", model]["versions"]
    assert version["spec"]["uri"] == f"package:{CARRIED[EMBEDDER].replace('_', '-')}"


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    status = Status(
        name="kafka", state=State.READY, pid=7, born=1.5, port=9, restarts=2, reason="ended with -9"
    )
    state.write(tmp_path / "state.json", {"kafka": status})
    assert state.read(tmp_path / "state.json") == {"kafka": status}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_without_a_supervisor_nothing_runs(tmp_path: Path) -> None:
    stack = LocalStack(StackSettings(home=tmp_path))
    assert not stack.running()
    assert stack.status() == {}
    assert stack.pid("kafka") is None
    stack.down()
    with pytest.raises(control.NotRunning):
        stack.stop("kafka")


def test_the_stack_of_another_user_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(link: socket.socket, address: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", locked)
    for ask in (control.listening, lambda folder: control.ask(folder, "stop", "kafka")):
        with pytest.raises(control.Refused, match="another user's; choose a STACK_HOME"):
            ask(tmp_path)


async def test_the_control_socket_works_in_a_folder_deeper_than_a_socket_path(
    tmp_path: Path,
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    asked: list[bytes] = []

    async def answer(line: bytes) -> bytes:
        asked.append(line)
        return b'{"error": "not today"}\n'

    async with control.listen(deep, answer):
        with pytest.raises(control.Refused, match="not today"):
            await asyncio.to_thread(control.ask, deep, "stop", "kafka")
    assert asked == [b'{"verb": "stop", "name": "kafka"}\n']
    assert not control.listening(deep)


@pytest.mark.parametrize(
    ("reply", "passes"),
    [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"HTTP/1.1 503 No\r\n\r\n", False), (b"", False)],
)
async def test_a_probe_passes_on_the_expected_answer_alone(
    reply: bytes, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.stack.service.PROBE_TIMEOUT_S", 60.0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await http_ok(port, "/ready").passes() is passes


async def test_a_probe_of_a_closed_port_fails() -> None:
    assert not await Probe(port=1, ask=b"", answer=b"").passes()


def test_postgres_moves_out_of_a_private_folder_only_for_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    settings = StackSettings(home=private / "home")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert postgres.places(settings)[1] == private.resolve() / "home" / "data" / "postgres"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert postgres.places(settings)[1].is_relative_to(postgres.ELSEWHERE)


async def test_the_service_of_the_readme_runs(
    tmp_path: Path,
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "infra/README.md").read_text(), re.S)
    space: dict[str, Callable[[StackSettings], Service]] = {}
    exec(example, space)
    settings = free_ports(tmp_path)
    unit = Unit(
        space["service"](settings),
        settings=settings,
        log_path=tmp_path / "echo.log",
        note=lambda: None,
        dependencies=nothing_to_wait_for,
    )
    unit.start()
    try:
        async with asyncio.timeout(120):
            await unit.good.wait()
        assert unit.status.state in GOOD
    finally:
        await unit.stop()
    assert unit.status.pid is None


@pytest.mark.parametrize("name", ["kafka_port", "kafka_controller_port"])
async def test_a_taken_port_is_named_with_the_setting_that_chooses_another(
    name: str, tmp_path: Path
) -> None:
    settings = free_ports(tmp_path)
    unit = Unit(
        build(settings)["kafka"],
        settings=settings,
        log_path=tmp_path / "kafka.log",
        note=lambda: None,
        dependencies=nothing_to_wait_for,
    )
    taken = getattr(settings, name)
    async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", taken):
        assert not is_free(taken)
        unit.start()
        async with asyncio.timeout(120):
            while unit.status.state is not State.FAILING:
                await asyncio.sleep(0.01)
            said = unit.status.reason
    await unit.stop()
    assert f"port {taken} is taken" in said
    assert said.endswith(f" STACK_{name.upper()}")


def test_every_port_of_the_settings_is_some_services() -> None:
    services = build(HERE).values()
    chosen = {HERE.variable_of(port) for service in services for port in service.ports}
    assert chosen == {
        f"STACK_{name.upper()}" for name in StackSettings.model_fields if name.endswith("_port")
    }


def test_only_what_fails_is_diagnosed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(name: str, state: State, reason: str = "") -> Status:
        return Status(
            name=name, state=state, pid=None, born=None, port=None, restarts=0, reason=reason
        )

    stack = LocalStack(StackSettings(home=tmp_path))
    waiting = [one("gateway", State.WAITING), one("registry", State.WAITING, "ended with 1")]
    found = {each.name: each for each in [one("kafka", State.STARTING, "ended with 7"), *waiting]}
    monkeypatch.setattr(stack, "status", lambda: found)
    said = stack.diagnosis(found)
    assert said.startswith("kafka is starting: ended with 7; the end of ")
    assert "gateway" not in said
    assert "registry" not in said
    found["kafka"] = one("kafka", State.READY)
    assert "gateway is waiting: no reason known" in stack.diagnosis(found)


def test_only_the_owner_may_read_what_carries_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_format", lambda tool, config: None)
    stack = LocalStack(StackSettings(home=tmp_path))
    for name in ("kafka", "recorder"):
        stack.services[name].prepare()
    for folder in (tmp_path / "data" / "kafka", stack.lake):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def nothing_to_wait_for() -> None:
    pass
