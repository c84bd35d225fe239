"""docker-compose.yml is the local stack for machines with Docker; it must not drift from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from infra import artifacts, maven, models
from infra.artifacts import WEAVIATE
from infra.bootstrap import ROOT, UV_VERSION
from infra.stack import connect, kafka
from infra.stack.jvm import properties
from infra.stack.kafka import MAX_MESSAGE_BYTES
from infra.stack.places import OPERATOR, TENANT
from infra.stack.processes import SEED
from infra.stack.redis import BOUNDED
from infra.stack.services import FOUNDATION, build
from infra.stack.settings import StackSettings
from infra.stack.workers import VLLM

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()
LOCAL = build(StackSettings(home=Path("/nowhere")))
# Our image: pinned by the locks that it is made from.
OURS = re.compile(r"tessera-(connect|service|worker):\d+\.\d+\.\d+")


def test_the_file_keeps_the_compose_specification() -> None:
    # The parser knows every key of the specification and refuses others.
    found = PyCompose.from_yaml(yaml.safe_dump(COMPOSE))
    assert sorted(found.service_names()) == sorted(SERVICES)


def test_the_parser_would_see_a_wrong_key() -> None:
    with pytest.raises(ValueError, match="portz"):
        PyCompose.from_yaml("services: {kafka: {image: 'a:1', portz: []}}")


def test_it_runs_what_the_local_stack_runs() -> None:
    assert sorted(SERVICES) == sorted(LOCAL)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_the_same_ones(name: str) -> None:
    assert sorted(SERVICES[name].get("depends_on", {})) == sorted(LOCAL[name].depends_on)
    for other, how in SERVICES[name].get("depends_on", {}).items():
        once = LOCAL[other].ready is None
        expected = "service_completed_successfully" if once else "service_healthy"
        assert how == {"condition": expected}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_the_same_port_on_loopback(name: str) -> None:
    published = [entry.rsplit(":", 1)[0] for entry in SERVICES[name].get("ports", [])]
    ports = [LOCAL[name].port] if LOCAL[name].port else []
    if name == "weaviate":
        ports.append(StackSettings().weaviate_grpc_port)
    assert published == [f"127.0.0.1:{port}" for port in ports]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_and_asked_for_its_health(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":\d+\.\d+(\.\d+)?$", service["image"])
    assert ("build" in service) == bool(OURS.fullmatch(service["image"]))
    assert ("healthcheck" in service) == (LOCAL[name].ready is not None)


def test_versions_are_those_of_the_local_stack() -> None:
    images = {name: service["image"].rpartition(":")[2] for name, service in SERVICES.items()}
    assert images["kafka"] == maven.KAFKA
    assert images["registry"] == maven.REGISTRY
    assert images["weaviate"] == WEAVIATE
    assert images["redis"] == artifacts.ARTIFACTS["redis"].version
    assert images["postgres"].split(".")[0] == "18"
    assert f"apache/kafka:{maven.KAFKA}" in DOCKERFILE
    assert f"uv=={UV_VERSION}" in DOCKERFILE
    assert all(package in DOCKERFILE for package in models.PACKAGES.values())


def test_every_target_that_is_built_exists() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert (ROOT / service["build"]["dockerfile"]).exists()


def test_our_processes_are_started_as_locally() -> None:
    for name in LOCAL.keys() - FOUNDATION:
        assert SERVICES[name]["command"][1:] == list(LOCAL[name].command[1:])
        assert set(LOCAL[name].environment) <= set(SERVICES[name]["environment"])
    assert VLLM.items() <= SERVICES["inference"]["environment"].items()


def test_both_embed_with_the_same_model() -> None:
    told = LOCAL["embedding"].environment
    same = {name: told[name] for name in told if name.startswith("INFERENCE_")}
    assert same.items() <= SERVICES["embedding"]["environment"].items()


def test_redis_has_the_same_bounds() -> None:
    words = SERVICES["redis"]["command"]
    assert all(words[words.index(f"--{name}") + 1] == told for name, told in BOUNDED.items())


def test_connect_is_told_the_same() -> None:
    folder = Path("/opt/connect/plugins")
    expected = connect.configuration(
        broker="kafka:9092",
        registry="http://registry:8080/apis/ccompat/v7",
        listener="http://0.0.0.0:8083",
        plugins=[folder / artifacts.folder(name, ROOT).name for name in connect.PLUGINS],
        secrets=Path("/lent"),
    )
    assert (ROOT / "infra" / "connect.properties").read_text() == properties(expected)


def test_connect_reads_passwords_where_they_are_lent() -> None:
    assert SERVICES["sources"]["environment"]["CONNECT_LENT"] == "/lent"
    for name in ("connect", "sources"):
        assert SERVICES[name]["volumes"] == ["lent:/lent"]


def test_the_broker_takes_messages_of_the_same_size() -> None:
    assert SERVICES["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"] == str(MAX_MESSAGE_BYTES)


def test_the_broker_treats_groups_the_same() -> None:
    told = kafka.configuration(StackSettings(), Path("/nowhere"))
    expected = {
        f"KAFKA_{name.upper().replace('.', '_')}": str(value)
        for name, value in told.items()
        if name.startswith("group.")
    }
    assert expected.items() <= SERVICES["kafka"]["environment"].items()


@pytest.mark.parametrize("name", sorted(LOCAL.keys() - FOUNDATION - {"provision"} | {"kafka"}))
def test_a_service_has_as_long_to_end_as_locally(name: str) -> None:
    assert SERVICES[name]["stop_grace_period"] == f"{LOCAL[name].stop_grace_s:.0f}s"


def test_only_what_confines_functions_is_less_confined_itself() -> None:
    loosened = {name: service.get("security_opt") for name, service in SERVICES.items()}
    assert {name: options for name, options in loosened.items() if options} == {
        "tools": ["apparmor=unconfined", "seccomp=unconfined"]
    }


def test_another_seed_needs_no_new_image() -> None:
    path = SEED.relative_to(ROOT)
    assert f"./{path}:/app/{path}:ro" in SERVICES["catalog"]["volumes"]
    assert SERVICES["catalog"]["environment"]["CATALOG_SEED"] == f"/app/{path}"


def test_the_operators_key_is_a_secret_file_that_git_does_not_take() -> None:
    environment = SERVICES["catalog"]["environment"]
    [name] = SERVICES["catalog"]["secrets"]
    assert environment["CATALOG_FIRST_KEY"] == f"file:/run/secrets/{name}"
    assert environment["CLIENT_KEY"] == environment["CATALOG_FIRST_KEY"]
    assert (environment["CLIENT_PRINCIPAL"], environment["CLIENT_TENANT"]) == (OPERATOR, TENANT)
    assert environment["CATALOG_FIRST_PRINCIPAL"] == OPERATOR
    file = COMPOSE["secrets"][name]["file"]
    assert f"openssl genpkey -algorithm ed25519 -out {file} " in TEXT
    for ignored in (".dockerignore", ".gitignore"):
        assert file in (ROOT / ignored).read_text().splitlines()


def test_no_secret_is_written_down() -> None:
    for variable in ("POSTGRES_PASSWORD", "WEAVIATE_API_KEY"):
        assert "${" + variable + ":?" in TEXT
