"""The local stack, for real: what each service is there for, and how it dies and comes back."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path

import fastavro
import psutil
import psycopg
import pytest
import redis
import weaviate
from confluent_kafka import Consumer, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from weaviate.classes.config import Configure, DataType, Property
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.exceptions import WeaviateBaseError

from infra.stack import kafka
from infra.stack.local import LocalStack, free_ports, until
from infra.stack.service import data_folder
from infra.stack.services import FOUNDATION
from infra.stack.state import State
from tests.conftest import running

pytestmark = pytest.mark.stack

WAIT_S = 240.0
# What Kafka Connect says while it shares its work out anew, or is told of something else.
BUSY = (409, 500)


def configuration(stack: LocalStack, **more: str) -> dict[str, str | int | float | bool]:
    return {"bootstrap.servers": stack.environment()["KAFKA_BOOTSTRAP_SERVERS"], **more}


def secret(stack: LocalStack, variable: str) -> str:
    return Path(stack.environment()[variable].removeprefix("file:")).read_text()


@contextmanager
def subscribed(stack: LocalStack, topic: str) -> Iterator[Consumer]:
    group = {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    with closing(Consumer(configuration(stack, **group))) as consumer:
        consumer.subscribe([topic])
        yield consumer


def next_record(consumer: Consumer) -> Message:
    found: list[Message] = []

    def arrived() -> bool:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            found.append(message)
        return bool(found)

    until(arrived, WAIT_S, lambda: "no record arrived")
    return found[0]


def new_topic(stack: LocalStack) -> str:
    topic = f"test.{uuid.uuid4().hex}"
    admin = AdminClient(configuration(stack))
    [made] = admin.create_topics([NewTopic(topic, 1, 1)]).values()
    made.result(WAIT_S)
    return topic


def produce(stack: LocalStack, topic: str, value: bytes) -> None:
    producer = Producer(configuration(stack, acks="all"))
    producer.produce(topic, value)
    assert producer.flush(WAIT_S) == 0


def test_what_is_produced_is_consumed(stack: LocalStack) -> None:
    topic = new_topic(stack)
    produce(stack, topic, b"hello")
    with subscribed(stack, topic) as consumer:
        assert next_record(consumer).value() == b"hello"


def test_a_topic_that_nobody_made_is_refused(stack: LocalStack) -> None:
    admin = AdminClient(configuration(stack))
    name = f"never.{uuid.uuid4().hex}"
    assert admin.list_topics(name, timeout=WAIT_S).topics[name].error is not None
    assert name not in admin.list_topics(timeout=WAIT_S).topics


def test_a_registered_schema_is_found_by_its_id(stack: LocalStack) -> None:
    text = '{"type": "record", "name": "Ping", "fields": []}'
    with SchemaRegistryClient({"url": stack.environment()["REGISTRY_URL"]}) as registry:
        number = registry.register_schema(f"{uuid.uuid4().hex}-value", Schema(text, "AVRO"))
        assert "Ping" in (registry.get_schema(number).schema_str or "")


def test_records_and_schema_ids_survive_a_crash_of_both(stack: LocalStack) -> None:
    topic = new_topic(stack)
    produce(stack, topic, b"kept")
    url = {"url": stack.environment()["REGISTRY_URL"]}
    text = '{"type": "record", "name": "Kept", "fields": []}'
    with SchemaRegistryClient(url) as registry:
        number = registry.register_schema(f"{topic}-value", Schema(text, "AVRO"))
    before = {name: stack.pid(name) for name in ("kafka", "registry")}

    for name in before:
        stack.kill(name)
    until(
        lambda: all(stack.pid(name) not in (pid, None) for name, pid in before.items()),
        WAIT_S,
        lambda: "the killed services were not started again",
    )
    stack.wait_ready(before, 2 * WAIT_S)

    with subscribed(stack, topic) as consumer:
        assert next_record(consumer).value() == b"kept"
    with SchemaRegistryClient(url) as registry:
        assert "Kept" in (registry.get_schema(number).schema_str or "")


def test_a_second_up_changes_nothing(stack: LocalStack) -> None:
    before = stack.status()
    stack.up(["kafka", "registry"])
    assert stack.status() == before


def test_only_what_was_asked_for_runs(stack: LocalStack) -> None:
    alive = {name for name, one in stack.status().items() if one.pid is not None}
    assert alive == {"kafka", "registry"}


def test_a_stopped_service_stays_down_until_it_is_started() -> None:
    with running(["redis"]) as stack:
        stack.stop("redis")
        assert stack.status()["redis"].state is State.STOPPED
        stack.start("redis")
        stack.wait_ready(["redis"], WAIT_S)


def test_a_taken_port_is_named(stack: LocalStack) -> None:
    home = Path(tempfile.mkdtemp(prefix="tessera-"))
    taken = stack.settings.kafka_port
    second = LocalStack(free_ports(home).model_copy(update={"redis_port": taken}))
    try:
        second.up(["redis"], wait=False)
        until(lambda: second.status()["redis"].restarts > 0, WAIT_S, lambda: "it started")
        assert f"port {taken} is taken" in second.status()["redis"].reason
    finally:
        second.down()
        shutil.rmtree(home)


def test_down_leaves_no_process() -> None:
    with running(["postgres", "redis"]) as stack:
        supervisor = psutil.Process(stack.pid("redis")).parent()
        assert supervisor is not None
        started = [supervisor, *supervisor.children(recursive=True)]
        assert len(started) > 3
        stack.down()
        assert not psutil.wait_procs(started, timeout=WAIT_S)[1]
        assert stack.status() == {}


def test_a_killed_supervisor_takes_everything_along_and_a_new_one_starts() -> None:
    with running(["postgres", "redis"]) as stack:
        supervisor = psutil.Process(stack.pid("redis")).parent()
        assert supervisor is not None
        services = supervisor.children(recursive=True)
        supervisor.kill()
        assert not psutil.wait_procs(services, timeout=WAIT_S)[1]
        assert stack.status() == {}
        stack.up(["postgres", "redis"])
        assert stack.pid("redis") not in {process.pid for process in services}


def test_postgres_keeps_a_logical_log(full_stack: LocalStack) -> None:
    with psycopg.connect(dsn(full_stack)) as session:
        assert session.execute("show wal_level").fetchone() == ("logical",)


def test_postgres_lets_nobody_in_without_the_password(full_stack: LocalStack) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(dsn(full_stack, password="wrong"))


def dsn(stack: LocalStack, password: str | None = None) -> str:
    at = stack.environment()
    word = password or secret(stack, "POSTGRES_PASSWORD")
    return (
        f"host={at['POSTGRES_HOST']} port={at['POSTGRES_PORT']} user={at['POSTGRES_USER']} "
        f"password={word} dbname=postgres"
    )


def test_redis_answers(full_stack: LocalStack) -> None:
    with redis.Redis.from_url(full_stack.environment()["REDIS_URL"]) as client:
        assert client.ping()


def test_a_change_of_a_table_arrives_as_an_avro_record(full_stack: LocalStack) -> None:
    name = f"t{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn(full_stack), autocommit=True) as session:
        session.execute(f"create table {name} (id int primary key, price numeric(10, 2))")
        session.execute(f"insert into {name} values (1, 1.50)")
        connect(full_stack, name)
        with subscribed(full_stack, f"{name}.public.{name}") as consumer:
            assert decoded(full_stack, next_record(consumer))["op"] == "r"
            session.execute(f"update {name} set price = 2.75 where id = 1")
            change = decoded(full_stack, next_record(consumer))
        assert change["op"] == "u"
        after = change["after"]
        assert isinstance(after, dict)
        assert str(after["price"]) == "2.75"


def connect(stack: LocalStack, name: str) -> None:
    at = stack.environment()
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": at["POSTGRES_HOST"],
        "database.port": at["POSTGRES_PORT"],
        "database.user": at["POSTGRES_USER"],
        "database.password": secret(stack, "POSTGRES_PASSWORD"),
        "database.dbname": "postgres",
        "plugin.name": "pgoutput",
        "poll.interval.ms": "50",
        "publication.autocreate.mode": "filtered",
        "publication.name": name,
        "slot.name": name,
        "table.include.list": f"public.{name}",
        "topic.creation.default.partitions": "1",
        "topic.creation.default.replication.factor": "1",
        "topic.prefix": name,
    }
    request = urllib.request.Request(
        f"{at['CONNECT_URL']}/connectors/{name}/config",
        data=json.dumps(config).encode(),
        headers={"Content-Type": "application/json"},
        method="PUT",
    )

    def made() -> bool:
        try:
            with urllib.request.urlopen(request, timeout=30):
                return True
        except urllib.error.HTTPError as problem:
            if problem.code not in BUSY:
                raise
            return False
        except (HTTPException, OSError):
            return False

    until(made, WAIT_S, lambda: f"the connector {name} was not made")


def decoded(stack: LocalStack, message: Message) -> dict[str, object]:
    value = message.value()
    assert value is not None
    assert value[0] == 0
    with SchemaRegistryClient({"url": stack.environment()["REGISTRY_URL"]}) as registry:
        text = registry.get_schema(int.from_bytes(value[1:5])).schema_str
    assert text is not None
    found = fastavro.schemaless_reader(io.BytesIO(value[5:]), json.loads(text), None)
    assert isinstance(found, dict)
    return found


@contextmanager
def vectors(stack: LocalStack, key: str) -> Iterator[weaviate.WeaviateClient]:
    settings = stack.settings
    with weaviate.connect_to_local(
        host="127.0.0.1",
        port=settings.weaviate_port,
        grpc_port=settings.weaviate_grpc_port,
        auth_credentials=Auth.api_key(key),
        additional_config=AdditionalConfig(
            timeout=Timeout(init=WAIT_S, query=WAIT_S, insert=WAIT_S)
        ),
    ) as client:
        yield client


def test_a_written_vector_is_its_own_nearest_neighbour(full_stack: LocalStack) -> None:
    with vectors(full_stack, secret(full_stack, "VECTORS_KEY")) as client:
        notes = client.collections.create(
            "Notes",
            properties=[Property(name="text", data_type=DataType.TEXT)],
            vector_config=Configure.Vectors.self_provided(),
        )
        number = notes.data.insert({"text": "hello"}, vector=[0.1, 0.9])
        [found] = notes.query.near_vector([0.1, 0.9], limit=1).objects
        assert found.uuid == number


def test_weaviate_lets_nobody_in_without_the_key(full_stack: LocalStack) -> None:
    with pytest.raises(WeaviateBaseError), vectors(full_stack, "wrong") as client:
        client.collections.list_all()
    port = full_stack.settings.weaviate_gossip_port + 1
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/nodes/status", timeout=WAIT_S)
    with refused.value as answer:
        assert answer.code == 401


def test_nothing_listens_beyond_loopback_but_what_asks_for_a_key(full_stack: LocalStack) -> None:
    settings = full_stack.settings
    # Weaviate binds these two to every interface whatever it is told; both ask for a secret.
    excused = {settings.weaviate_grpc_port, settings.weaviate_gossip_port + 1}
    open_to_all = set()
    for name in FOUNDATION:
        pid = full_stack.pid(name)
        assert pid is not None
        for link in psutil.Process(pid).net_connections("inet"):
            address = str(link.laddr.ip).removeprefix("::ffff:")
            if link.status == psutil.CONN_LISTEN and not address.startswith("127."):
                open_to_all.add(link.laddr.port)
    assert open_to_all <= excused


def test_no_secret_is_in_a_log(full_stack: LocalStack) -> None:
    words = [secret(full_stack, name) for name in ("POSTGRES_PASSWORD", "VECTORS_KEY")]
    for path in (full_stack.settings.home / "logs").iterdir():
        said = path.read_text(errors="replace")
        assert not [word for word in words if word in said], path


def test_a_cluster_whose_id_begins_with_a_dash_is_formatted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(bytes=b"\xf8" + bytes(15)))
    settings = free_ports(tmp_path)
    prepare = kafka.service(settings).prepare
    assert prepare is not None
    prepare()
    made = data_folder("kafka", settings) / "log" / "meta.properties"
    assert "cluster.id=-AAAAAAAAAAAAAAAAAAAAA" in made.read_text()
