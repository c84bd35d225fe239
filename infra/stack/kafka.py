"""Apache Kafka: one KRaft node that is both broker and controller."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path

from infra import artifacts
from infra.stack.jvm import LOGGING, QUICK_START, java, properties, write
from infra.stack.service import LOOPBACK, Probe, Service, data_folder, private
from infra.stack.settings import StackSettings

HEAP_MIB = 512
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# ApiVersions v0, correlation id 1, no client id; the reply repeats the id, then error code 0.
ASK_VERSIONS = bytes.fromhex("0000000a 0012 0000 00000001 ffff")
VERSIONS_ANSWER = bytes.fromhex("00000001 0000")


def service(settings: StackSettings) -> Service:
    """Kafka on ``kafka_port``; its log segments survive restarts."""
    data = data_folder("kafka", settings)
    config = data / "server.properties"
    classpath = f"{artifacts.folder('kafka', settings.cache)}/*"
    logging = f"-Dlog4j2.configurationFile={data / 'log4j2.properties'}"

    def prepare() -> None:
        private(data)  # The log carries prompts.
        write(config, properties(configuration(settings, data / "log")))
        write(data / "log4j2.properties", LOGGING)
        if not (data / "log" / "meta.properties").exists():
            tool = java(256, *QUICK_START, logging, "-cp", classpath, "kafka.tools.StorageTool")
            _format(tool, config)

    return Service(
        name="kafka",
        command=java(HEAP_MIB, logging, "-cp", classpath, "kafka.Kafka", str(config)),
        port=settings.kafka_port,
        prepare=prepare,
        ready=Probe(port=settings.kafka_port, ask=ASK_VERSIONS, answer=VERSIONS_ANSWER),
        artifacts=("kafka",),
        other_ports=(settings.kafka_controller_port,),
        stop_grace_s=30.0,
    )


def configuration(settings: StackSettings, log: Path) -> dict[str, str | int]:
    """What the broker is told; the image for Docker is told the same of groups and sizes."""
    controller = f"{LOOPBACK}:{settings.kafka_controller_port}"
    return {
        "node.id": 1,
        "process.roles": "broker,controller",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{settings.kafka_port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{settings.kafka_port}",
        "log.dirs": str(log),
        "auto.create.topics.enable": "false",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 4,
        # After a crash the broker must outwait its own former session; the default is 9 s.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 500,
        # One node has nobody to wait for, and short sessions let a test see a dead member soon.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "group.consumer.session.timeout.ms": 10_000,
        "group.consumer.heartbeat.interval.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.min.heartbeat.interval.ms": 200,
    }


def _format(tool: tuple[str, ...], config: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [*tool, "format", "--ignore-formatted", f"--cluster-id={cluster}", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")
