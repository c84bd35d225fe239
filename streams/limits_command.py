"""Which limits hold for somebody, and how much of each is used now.

    tessera limits                                  for you, on the local model
    tessera limits alice main.default.smollm2
    tessera limits alice main.default.smollm2 --tag team=blue --json

Used is what counts within the window that ends now, and what requests under way have reserved; left
is what the next request may take. Where nothing is left, the last column says when something comes
back. Cost is in US dollars. A rule in shadow only records what it would have refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from infra.bus import BusUnreachable, Publisher
from infra.catalog import CatalogView, Limits
from infra.follow import CatalogLost, look
from infra.registry import Reader, Registry, RegistryUnreachable
from infra.settings import (
    ClientSettings,
    GatewaySettings,
    KafkaSettings,
    RegistrySettings,
    SettingInvalid,
)
from infra.telemetry import now
from schemas.codec import Codec
from schemas.events import Charge, InferenceRequested, Refusal, Sampling
from schemas.topics import INFERENCE_REQUESTED, INFERENCE_WEIGHED, USAGE_COUNTED
from streams.ask import ENDPOINT, span, tag
from streams.gateway.limits.amounts import scaled, shown
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.recover import standing
from streams.gateway.limits.rules import Bound, bounds
from streams.lines import aligned
from streams.steps import home_of

LOST = (BusUnreachable, CatalogLost, LookupError, RegistryUnreachable)
HEADINGS = ("rule", "per", "unit", "window", "used", "most", "left", "more")

# Who has the counters of a home.
Keeps = Callable[[Bound], Counters]


class Unasked(Exception):
    """Nobody could ask this; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A limit, and how much of it is used.

    Attributes:
        rule: policy/rule.
        per: Whose use is counted together.
        unit: What is counted.
        window: How far back; empty for what counts only while it goes on.
        used: How much counts now, as a decimal number.
        most: The bound.
        left: What is left of it.
        more_in_ms: When more is left, where nothing is; None where something is, or never.
        shadow: Whether it only records what it would have refused.
    """

    rule: str
    per: str
    unit: str
    window: str
    used: str
    most: str
    left: str
    more_in_ms: int | None
    shadow: bool


def main(words: Sequence[str]) -> int:
    """Shows what the command line asks for; returns the exit code."""
    arguments = _arguments(words)
    try:
        client = ClientSettings()
        who = arguments.principal or client.principal or client.tenant
        found = asyncio.run(read(who, arguments.endpoint, dict(arguments.tag)))
    except (SettingInvalid, Unasked) as problem:
        print(f"limits: {problem}", file=sys.stderr)
        return 1
    except LOST as problem:
        print(f"limits: {problem}; is the stack up? try: tessera status", file=sys.stderr)
        return 1
    if arguments.json:
        print("".join(f"{json.dumps(asdict(each))}\n" for each in found), end="")
    elif found:
        print(table(found))
    else:
        print(
            f"no limit holds for {who} on {arguments.endpoint}; policies set them, which endpoints "
            "and tenants name: tessera catalog kinds policy"
        )
    return 0


async def read(who: str, endpoint: str, tags: dict[str, str]) -> list[Standing]:
    """Returns the limits that hold for somebody on an endpoint, as the log has them now.

    Raises:
        BusUnreachable: No broker answers.
        CatalogLost: The catalog cannot be read.
        LookupError: Provisioning has not run.
        RegistryUnreachable: The registry does not answer.
        Unasked: Nobody could ask so.
    """
    kafka, registry = KafkaSettings(), Registry(RegistrySettings())
    codec = Codec(await asyncio.to_thread(registry.ids))
    gateway = GatewaySettings()
    view = CatalogView(
        Limits(max_request_bytes=gateway.max_request_bytes, max_deadline_ms=gateway.max_deadline_ms)
    )
    name = f"limits-{uuid4()}"
    await look(kafka, Reader(codec, registry), view, name)
    held = holding(who, endpoint, tags, view)
    publisher = Publisher(kafka, codec, name)
    try:
        places = {each.counter: await _place(each, publisher) for each in held}
    finally:
        await publisher.close()
    # Several limits may lie at one place, which is read once.
    kept = {
        (partition, shared): await asyncio.to_thread(
            standing, kafka, codec, registry, partition, shared=shared
        )
        for partition, shared in sorted(set(places.values()))
    }
    return standings(held, lambda bound: kept[places[bound.counter]], now())


def holding(who: str, endpoint: str, tags: dict[str, str], view: CatalogView) -> tuple[Bound, ...]:
    """Returns the limits that hold for what somebody asks of an endpoint.

    Raises:
        Unasked: Nobody could ask so.
    """
    principal, known = view.principals.get(who), view.endpoints.get(endpoint)
    if principal is None:
        raise Unasked(f"the catalog knows no {who}; see: tessera catalog list")
    if principal.tenant is None:
        raise Unasked(f"{who} is a {principal.kind}, which asks nothing: name one of its members")
    if known is None:
        raise Unasked(
            f"the catalog has no endpoint {endpoint}; see: tessera catalog list --kind endpoint"
        )
    instant = now()
    request = InferenceRequested(
        request_id="",
        tenant=principal.tenant,
        principal=who,
        endpoint=endpoint,
        messages=(),
        sampling=Sampling(),
        reply_to="",
        requested_at=instant,
        deadline=instant,
        tags=tags,
    )
    found = bounds(request, who, known, view)
    if isinstance(found, Refusal):
        raise Unasked(found.message)
    return found


def standings(held: Iterable[Bound], keeps: Keeps, instant: datetime) -> list[Standing]:
    """Returns how much of each limit is used at an instant."""
    return [_standing(bound, keeps(bound), instant) for bound in held]


def table(found: Sequence[Standing]) -> str:
    """Returns limits as a table in lines of text."""
    return aligned([HEADINGS, *(_row(each) for each in found)])


def _standing(bound: Bound, counters: Counters, instant: datetime) -> Standing:
    rule = bound.rule
    # The least that a request could want.
    one = Charge(
        counter=bound.counter,
        home=bound.home,
        unit=rule.unit,
        window_ms=bound.window_ms,
        amount=1,
    )
    used, most = counters.used(one, instant), scaled(rule.unit, rule.most)
    left = max(0, most - used)
    return Standing(
        rule=bound.name,
        per=f"{rule.per} {bound.who or '(no such tag)'}",
        unit=rule.unit,
        window=rule.window or "",
        used=shown(rule.unit, used),
        most=shown(rule.unit, most),
        left=shown(rule.unit, left),
        more_in_ms=None if left else counters.wait_ms(one, most, instant),
        shadow=rule.shadow,
    )


def _row(each: Standing) -> tuple[str, ...]:
    sign = "$" if each.unit == "cost" else ""
    wait = each.more_in_ms
    more = "" if wait is None else f"in {span(timedelta(milliseconds=wait))}"
    return (
        f"{each.rule} (shadow)" if each.shadow else each.rule,
        each.per,
        each.unit,
        each.window or "at one time",
        *(f"{sign}{amount}" for amount in (each.used, each.most, each.left)),
        more,
    )


async def _place(bound: Bound, publisher: Publisher) -> tuple[int, bool]:
    """Returns the partition of the ledger where a limit is counted, and whether tenants share it.

    Raises:
        LookupError: Its topic does not exist, or has more partitions than the ledger.
    """
    decided_on = INFERENCE_WEIGHED if bound.shared else INFERENCE_REQUESTED
    partition = home_of(bound.home.encode(), await publisher.partitions(decided_on.name))
    if partition >= await publisher.partitions(USAGE_COUNTED.name):
        raise LookupError(f"{decided_on.name} has more partitions than {USAGE_COUNTED.name}")
    return partition, bound.shared


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tessera limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("principal", nargs="?", help="who asks; CLIENT_PRINCIPAL when left out")
    parser.add_argument("endpoint", nargs="?", default=ENDPOINT, help="three-level name")
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        type=tag,
        metavar="NAME=VALUE",
        help="label of the request, where limits are per tag; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(words)
