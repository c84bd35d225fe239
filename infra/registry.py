"""The schema registry: ids for our schemas, schemas for foreign ids.

Only provisioning registers; a running process looks up. A process that meets an id it has not seen
fetches the writer's schema off the event loop and keeps it.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import httpx2
import structlog
from confluent_kafka.schema_registry import (
    ConfigCompatibilityLevel,
    Schema,
    SchemaRegistryClient,
    ServerConfig,
)
from confluent_kafka.schema_registry.error import SchemaRegistryError

from infra.settings import RegistrySettings
from schemas.avro import whole
from schemas.codec import Codec, SchemaUnlearned, Unreadable
from schemas.events import Event
from schemas.topics import TOPICS, Topic

E = TypeVar("E", bound=Event)
T = TypeVar("T")

log = structlog.get_logger()

COMPATIBILITY = ConfigCompatibilityLevel.FULL_TRANSITIVE

CONFLICT = 409
NOT_FOUND = 404

# How long an id that the registry does not know is refused without asking again.
FORGET_S = 60.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0


class SchemaMissing(LookupError):
    """The registry does not know a schema."""


class SchemaRefused(RuntimeError):
    """The registry refuses a schema that readers of the older versions could not follow."""


class RegistryUnreachable(RuntimeError):
    """The registry does not answer, or not sensibly."""


class Registry:
    """What the registry says; every call blocks and may raise RegistryUnreachable."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._url = settings.url
        # The address may carry a password.
        self._shown = re.sub(r"//[^/]*@", "//", settings.url)

    def ids(self) -> dict[str, int]:
        """Returns the registry's id of each event that a topic carries, by full name.

        Raises:
            SchemaMissing: One is not registered; provisioning has not run.
        """
        ids: dict[str, int] = {}
        with self._connected() as client:
            for topic in TOPICS:
                name = topic.event.SCHEMA
                with self._told(f"{name} is not registered as it stands here: run provisioning"):
                    found = client.lookup_schema(topic.subject, schema_of(topic.event))
                ids[name] = int(found.schema_id or 0)
        return ids

    def schema(self, schema_id: int) -> dict[str, object]:
        """Returns the schema behind an id.

        Raises:
            SchemaMissing: There is none.
        """
        missing = f"the registry knows no schema {schema_id} of Avro"
        with self._connected() as client, self._told(missing):
            found = client.get_schema(schema_id)
        return _avro(found, missing)

    def latest(self, subject: str) -> tuple[int, dict[str, object]]:
        """Returns id and schema of the newest version of a subject.

        Raises:
            SchemaMissing: There is no such subject, or it is none of Avro.
        """
        missing = f"the registry has no subject {subject} of Avro"
        with self._connected() as client, self._told(missing):
            found = client.get_latest_version(subject)
        return int(found.schema_id or 0), _avro(found.schema, missing)

    def register(self, topic: Topic[Any]) -> int:
        """Registers the schema of a topic's values where it is new; returns its id.

        Raises:
            SchemaRefused: It is not compatible with a version registered before; the message shows
                how the two differ.
        """
        return self.register_all([topic])[0]

    def register_all(self, topics: Iterable[Topic[Any]]) -> list[int]:
        """Registers the schemas of topics, one after the other; returns their ids.

        Raises:
            SchemaRefused: As ``register``; those before it are registered.
        """
        with self._connected() as client:
            return [self._register(client, topic) for topic in topics]

    def _register(self, client: SchemaRegistryClient, topic: Topic[Any]) -> int:
        schema = schema_of(topic.event)
        with self._told(f"the registry has no subject {topic.subject}"):
            # A question costs the registry much less than a change that changes nothing.
            if (known := _known(client, topic.subject, schema)) is not None:
                return known
            try:
                client.set_config(topic.subject, ServerConfig(compatibility=COMPATIBILITY))
            except SchemaRegistryError as problem:
                # Another provisioning was just as fast, with the same rule.
                if problem.http_status_code != CONFLICT:
                    raise
            try:
                return client.register_schema(topic.subject, schema)
            except SchemaRegistryError as problem:
                if problem.http_status_code != CONFLICT:
                    raise
            registered = client.get_latest_version(topic.subject).schema
        raise SchemaRefused(
            f"{topic.subject}: this schema is not {COMPATIBILITY.value} with the registered one\n"
            + _difference(registered, schema)
        )

    def _connected(self) -> AbstractContextManager[SchemaRegistryClient]:
        # Asked a few times in a process's life, so no connection is kept.
        return SchemaRegistryClient({"url": self._url, "timeout": 10, "max.retries": 1})

    @contextmanager
    def _told(self, missing: str) -> Iterator[None]:
        """Turns a client's errors into ours; ``missing`` is what a 404 means here."""
        try:
            yield
        except SchemaRegistryError as problem:
            if problem.http_status_code == NOT_FOUND:
                raise SchemaMissing(missing) from None
            raise RegistryUnreachable(
                f"the schema registry at {self._shown} answers {problem.http_status_code}: "
                f"{problem.error_message}"
            ) from None
        except httpx2.HTTPError as problem:
            raise RegistryUnreachable(
                f"the schema registry at {self._shown} does not answer: {type(problem).__name__}"
            ) from None


def _known(client: SchemaRegistryClient, subject: str, schema: Schema) -> int | None:
    """Returns the id of a schema that a subject has already, under our rule; else None."""
    try:
        found = client.lookup_schema(subject, schema)
        rule = client.get_config(subject).compatibility_level
    except SchemaRegistryError as problem:
        if problem.http_status_code != NOT_FOUND:
            raise
        return None
    return found.schema_id if rule == COMPATIBILITY else None


def _avro(found: Schema, missing: str) -> dict[str, object]:
    try:
        schema = json.loads(found.schema_str or "null")
    except ValueError:
        schema = None
    if found.schema_type != "AVRO" or not isinstance(schema, dict):
        raise SchemaMissing(missing)
    return schema


def _difference(registered: Schema, here: Schema) -> str:
    old, new = (
        json.dumps(json.loads(schema.schema_str or "null"), indent=2).splitlines()
        for schema in (registered, here)
    )
    return "\n".join(difflib.unified_diff(old, new, "registered", "here", lineterm=""))


def schema_of(event: type[Event]) -> Schema:
    """Returns an event's schema as the registry takes it: whole, as Avro."""
    return Schema(json.dumps(whole(event.SCHEMA)), "AVRO")


class Plain(NamedTuple):
    """A record of a foreign schema: what its key and value say.

    Attributes:
        key: Fields of an Avro record; text where it is none; None where there is no key.
        value: Fields of an Avro record; None where there is no value.
        schema_id: Of the value.
    """

    key: Mapping[str, Any] | str | None
    value: Mapping[str, Any] | None
    schema_id: int | None


class Reader:
    """Decodes values, learning writers' schemas as they turn up."""

    def __init__(self, codec: Codec, registry: Registry) -> None:
        self._codec = codec
        self._registry = registry
        self._missing: dict[int, float] = {}

    async def read(self, value: bytes | None, expected: type[E]) -> E:
        """Returns the event in a value; waits for the registry as long as it does not answer.

        Raises:
            Unreadable: The value is not a framed ``expected``.
            SchemaMissing: Its schema id is none of the registry's.
        """
        return await self._learned(lambda: self._codec.decode(value, expected))

    async def plain(self, key: bytes | None, value: bytes | None) -> Plain:
        """Returns what a record of any schema says; waits as ``read`` does.

        Raises:
            Unreadable: The value is no Avro record.
            SchemaMissing: Its schema id is none of the registry's.
        """
        if value is None:
            return Plain(await self._key(key), None, None)
        schema_id, fields = await self._learned(lambda: self._codec.plain(value))
        return Plain(await self._key(key), fields, schema_id)

    async def _key(self, key: bytes | None) -> Mapping[str, Any] | str | None:
        if key is None:
            return None
        try:
            return (await self._learned(lambda: self._codec.plain(key)))[1]
        # Whoever writes no Avro keys writes texts, most often.
        except (Unreadable, SchemaMissing):
            return key.decode(errors="backslashreplace")

    async def _learned(self, decode: Callable[[], T]) -> T:
        while True:
            try:
                return decode()
            except SchemaUnlearned as unlearned:
                await self._learn(unlearned.schema_id)

    async def _learn(self, schema_id: int) -> None:
        if time.monotonic() - self._missing.get(schema_id, -FORGET_S) < FORGET_S:
            raise SchemaMissing(f"the registry knows no schema {schema_id}")
        wait = FIRST_WAIT_S
        while True:
            try:
                schema = await asyncio.to_thread(self._registry.schema, schema_id)
            except SchemaMissing:
                self._missing[schema_id] = time.monotonic()
                raise
            except RegistryUnreachable as problem:
                log.warning("registry awaited", schema_id=schema_id, error=str(problem))
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            else:
                self._codec.learn(schema_id, schema)
                return
