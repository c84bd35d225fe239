"""Health of a consumer, judged by what the broker says and not by what the process believes.

``/live`` fails when an assigned partition has records waiting and its committed offset has not
moved for the stall time: a restart may help. ``/ready`` fails when the broker does not answer or
the process is no member of its group: work should not be expected of it. Idle partitions are
healthy. ``/metrics`` is for Prometheus.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from infra.settings import HealthSettings, KafkaSettings
from infra.telemetry import BROKER, LAG, described

log = structlog.get_logger()

ASK_EVERY_S = 2.0
TRANSFER_S = 5.0
# How old the broker's last answer may be for the process to count as ready.
STALE_S = 10.0


@dataclass(slots=True, frozen=True)
class Place:
    """Where a group stands on one partition: offsets, and whether this process owns it."""

    topic: str
    partition: int
    committed: int
    end: int
    mine: bool

    @property
    def lag(self) -> int:
        """Records between the committed offset and the end."""
        return max(0, self.end - self.committed)


@dataclass(slots=True)
class Progress:
    """What has been seen of a group so far, and since when each partition stands still."""

    stall_s: float
    since: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    member: bool = False
    seen_at: float = float("-inf")

    def observe(self, places: Iterable[Place], member: bool, now: float) -> None:
        """Takes in what the broker says at a moment of a monotonic clock, in seconds."""
        self.places, self.member, self.seen_at = list(places), member, now
        # Only a partition that is ours, with records waiting, can stand still.
        waiting = [place for place in self.places if place.mine and place.lag]
        kept: dict[tuple[str, int], tuple[int, float]] = {}
        for place in waiting:
            key = (place.topic, place.partition)
            before = self.since.get(key)
            moved = before is None or before[0] != place.committed
            kept[key] = (place.committed, now) if moved or before is None else before
        self.since = kept

    def stalled(self, now: float) -> list[tuple[str, int]]:
        """Returns the partitions that have stood still for the stall time."""
        return sorted(key for key, (_, since) in self.since.items() if now - since > self.stall_s)

    def excuse(self, key: tuple[str, int], now: float) -> None:
        """Starts the clock of a partition anew: nothing waits on it after all."""
        self.since[key] = (self.since[key][0], now)


class Member(NamedTuple):
    """What a process consumes as: the group, its own client id in it, and the topics."""

    group: str
    client_id: str
    topics: tuple[str, ...]


def _admin(kafka: KafkaSettings) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})


class Health:
    """Asks the broker about groups from a thread of its own and answers over HTTP.

    Args:
        settings: Where to listen, and the stall time.
        kafka: Where the broker is.
        members: What this process consumes as. Without any it counts as ready only when it has
            begun (``begin``); it may join and leave groups later.
    """

    def __init__(self, settings: HealthSettings, kafka: KafkaSettings, *members: Member) -> None:
        self._admin = _admin(kafka)
        self._stall_s = settings.stall_ms / 1000
        self._progress: dict[Member, Progress] = {}
        self._seen_at = float("-inf")
        self._kafka = kafka
        self._stalled: list[str] = []
        self._closing = threading.Event()
        self._begun = bool(members)
        self._draining = False
        self._server = ThreadingHTTPServer((settings.host, settings.port), self._responder())
        self._threads = [
            threading.Thread(target=self._watch, name="health-watch", daemon=True),
            threading.Thread(target=self._server.serve_forever, name="health-http", daemon=True),
        ]
        for member in members:
            self.join(member)

    def join(self, member: Member) -> None:
        """Watches over a group from now on."""
        self._progress = {**self._progress, member: Progress(self._stall_s)}

    def leave(self, member: Member) -> None:
        """Watches over a group no more."""
        self._progress = {each: seen for each, seen in self._progress.items() if each != member}

    @property
    def port(self) -> int:
        """The port that the endpoint listens on."""
        return self._server.server_address[1]

    def start(self) -> None:
        """Starts watching and answering."""
        for thread in self._threads:
            thread.start()
        log.info("health endpoint listening", port=self.port)

    def begin(self) -> None:
        """Says that all groups are joined that there are to join so far."""
        self._begun = True

    def drain(self) -> None:
        """Says from now on that no work should be expected of this process."""
        self._draining = True

    def close(self) -> None:
        """Stops watching and answering."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def live(self) -> tuple[bool, dict[str, object]]:
        """Returns whether a restart is not called for, and what speaks for it."""
        return not self._stalled, {"stalled": self._stalled}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Returns whether work can be expected, and the facts."""
        watched = self._progress.values()
        answers = time.monotonic() - self._seen_at < STALE_S
        member = all(progress.member for progress in watched)
        mine = [place for progress in watched for place in progress.places if place.mine]
        return answers and member and self._begun and not self._draining, {
            "begun": self._begun,
            "broker_answers": answers,
            "member": member,
            "draining": self._draining,
            "lag": sum(place.lag for place in mine),
            "partitions": len(mine),
        }

    def _watch(self) -> None:
        while not self._closing.wait(ASK_EVERY_S):
            watched = self._progress
            try:
                for member, progress in watched.items():
                    places, present = standing(self._admin, member)
                    progress.observe(places, present, time.monotonic())
                if not watched:
                    self._admin.list_topics(timeout=TRANSFER_S)
                self._seen_at = time.monotonic()
                BROKER.set(1)
                self._judge(watched)
            except (KafkaException, TimeoutError) as problem:
                BROKER.set(0)
                log.warning("broker does not answer", error=described(problem))
                # After an outage an old client may wait for ever on a coordinator that is back.
                self._admin = _admin(self._kafka)
                continue
            behind: Counter[tuple[str, int]] = Counter()
            for progress in watched.values():
                for place in progress.places:
                    behind[place.topic, place.partition] += place.lag
            for (topic, partition), lag in behind.items():
                LAG.labels(topic, partition).set(lag)

    def _judge(self, watched: Mapping[Member, Progress]) -> None:
        stalled = []
        for member, progress in watched.items():
            for topic, partition in progress.stalled(time.monotonic()):
                committed = progress.since[topic, partition][0]
                if waits(self._kafka, member.client_id, topic, partition, committed):
                    stalled.append(f"{topic}/{partition}")
                else:
                    progress.excuse((topic, partition), time.monotonic())
        if stalled != self._stalled:
            log.warning("stalled partitions", stalled=stalled)
        self._stalled = stalled

    def _responder(self) -> type[BaseHTTPRequestHandler]:
        answers: dict[str, Callable[[], tuple[bool, dict[str, object]]]] = {
            "/live": self.live,
            "/ready": self.ready,
        }

        class Responder(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._send(200, CONTENT_TYPE_LATEST, generate_latest())
                elif self.path in answers:
                    good, facts = answers[self.path]()
                    body = json.dumps({"ok": good, **facts}).encode()
                    self._send(200 if good else 503, "application/json", body)
                else:
                    self._send(404, "text/plain", b"/live, /ready or /metrics\n")

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing: probes come every few seconds."""

            def _send(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Responder


def waits(kafka: KafkaSettings, name: str, topic: str, partition: int, committed: int) -> bool:
    """Returns whether a record really waits: transaction markers count as lag, too.

    Args:
        kafka: Where the broker is.
        name: Names a group that is never joined.
        topic: What is consumed.
        partition: Of it.
        committed: Where its consumer stands.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"{name}-probe",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            # The end answers at once: a partition where nothing waits holds nothing up.
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, committed)])
        found = consumer.poll(TRANSFER_S)
        return found is not None and found.error() is None
    finally:
        consumer.close()


def standing(admin: AdminClient, member: Member) -> tuple[list[Place], bool]:
    """Returns where a group stands on its topics, and whether the member is in it.

    The ends were asked for last, so no record is missed that was there at the time of the call.

    Raises:
        KafkaException: The broker does not answer.
        TimeoutError: It does not answer in time.
    """
    topics = admin.list_topics(timeout=TRANSFER_S).topics
    wanted = [
        TopicPartition(topic, partition)
        for topic in member.topics
        if topic in topics
        for partition in topics[topic].partitions
    ]
    group = admin.describe_consumer_groups([member.group], request_timeout=TRANSFER_S)
    members = group[member.group].result(TRANSFER_S).members
    mine = {
        (owned.topic, owned.partition)
        for each in members
        if each.client_id == member.client_id
        for owned in each.assignment.topic_partitions
    }
    asked = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(member.group, wanted)], request_timeout=TRANSFER_S
    )
    committed = asked[member.group].result(TRANSFER_S).topic_partitions or []
    ends = admin.list_offsets(
        {each: OffsetSpec.latest() for each in wanted},  # type: ignore[no-untyped-call]
        request_timeout=TRANSFER_S,
    )
    end = {(each.topic, each.partition): at.result(TRANSFER_S).offset for each, at in ends.items()}
    places = [
        Place(
            topic=each.topic,
            partition=each.partition,
            # A group that has not committed yet starts at the beginning.
            committed=max(each.offset, 0),
            end=end[(each.topic, each.partition)],
            mine=(each.topic, each.partition) in mine,
        )
        for each in committed
    ]
    return places, any(each.client_id == member.client_id for each in members)
