"""Records that no reader of ours can read, and some that only look so."""

from __future__ import annotations

from dataclasses import dataclass

from infra.telemetry import Headers
from schemas.codec import Codec
from schemas.events import DeadLetterCause, Event
from tests.harness import Bus

# Far beyond what the registry has given out.
UNKNOWN_ID = (999_999).to_bytes(4, "big")

ODD_HEADERS: Headers = (("odd", b"\xff\xfe\x00"), ("none", None), ("traceparent", b"\xc3\x28"))


@dataclass(slots=True, frozen=True)
class Garbage:
    """A record that must become a dead letter."""

    what: str
    cause: DeadLetterCause
    value: bytes | None
    key: bytes | None = b"key"
    headers: Headers = ()


def garbage(codec: Codec, good: Event, other: Event) -> list[Garbage]:
    """Returns one of each kind.

    Args:
        codec: Under the registry's ids.
        good: An event that belongs on the topic.
        other: An event of another kind.
    """
    value = codec.encode(good)
    unreadable = DeadLetterCause.UNREADABLE
    return [
        Garbage("no Avro", unreadable, b"\x01\x02 no frame"),
        Garbage("an empty value", unreadable, b""),
        Garbage("a tombstone", unreadable, None),
        Garbage("a frame cut short", unreadable, b"\x00\x00"),
        Garbage("an event cut short", unreadable, value[: len(value) // 2]),
        Garbage("bytes after the event", unreadable, value + b"\x00"),
        Garbage("another event", unreadable, codec.encode(other)),
        Garbage("a null key", unreadable, b"nothing", key=None),
        Garbage("a key that is no text", unreadable, b"nothing", key=b"\xff\x00"),
        Garbage("odd headers", unreadable, b"nothing", headers=ODD_HEADERS),
        Garbage("5 MB", unreadable, b"\x07" * 5_000_000),
        Garbage("an unknown schema", DeadLetterCause.SCHEMA_UNKNOWN, b"\x00" + UNKNOWN_ID + b"x"),
    ]


def put(bus: Bus, topic: str, lot: list[Garbage], partition: int = 0) -> None:
    """Produces garbage, in order, to one partition."""
    for each in lot:
        bus.put(topic, each.key, each.value, headers=list(each.headers), partition=partition)
    bus.settle()
