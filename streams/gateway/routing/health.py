"""How routes are doing, as far as this process sees it: which are up, how busy, how fast.

A route that failed so often in a row cools down: while another is up, it gets nothing. Then it is
half-open: one request at a time probes it. An answer to what was sent since it went down, the
probe's or another's, brings it back; a failure lets it cool down anew. A provider that says it is
asked too often (429) is neither well nor ill; it is left alone for as long as it says.

What is kept is a fold of what was sent and completed, each with the moment it was seen at. A clock
that steps back prolongs what lasts by no more than its own length.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra.catalog import CatalogView
from schemas.events import (
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Refusal,
    Route,
)
from schemas.routing import Cooldown
from schemas.shapes import length

# A route is ill. RATE_LIMITED means busy, and all others are the caller's or nobody's fault: who
# asks can ask for what no answer keeps to (ANSWER_UNKEPT).
FAILURES = frozenset(
    {
        Reason.PROVIDER_FAILED,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_UNAVAILABLE,
        Reason.STREAM_CUT,
    }
)
MOST_ROUTES = 10_000
MOST_IN_FLIGHT = 100_000
# Whatever a provider says, it is looked at again after so long.
LONGEST_AVOIDED = timedelta(minutes=5)
# A worker refuses what is late; that takes a moment to get here.
GRACE = timedelta(seconds=5)
# A new time to the first token counts at least so much against all before it, and half of all once
# they are so old.
LEAST_SHARE = 0.2
HALF_LIFE_S = 30.0

# Of one try of a request.
Mark = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time."""

    since: datetime
    lasts: timedelta

    def holds(self, now: datetime) -> bool:
        """Returns whether it goes on; not if the clock stepped back by more than it lasts."""
        return abs(now - self.since) < self.lasts

    @property
    def end(self) -> datetime:
        """When it is over."""
        return self.since + self.lasts


@dataclass(slots=True)
class Condition:
    """What is known of a route.

    Attributes:
        failures: How many there were in a row.
        down: When it cools down; half-open once that is over, up when there is none.
        avoided: When its provider wants to be left alone.
        probe: The try that probes it.
        in_flight: Tries that were sent to it and have not come back.
        first_token_s: Mean time to the first token, the latest counting most.
        measured_at: When that was last measured.
    """

    failures: int = 0
    down: Span | None = None
    avoided: Span | None = None
    probe: Mark | None = None
    in_flight: int = 0
    first_token_s: float | None = None
    measured_at: datetime | None = None

    def fail(self, cooldown: Cooldown, now: datetime) -> None:
        """Takes a failure in."""
        self.failures += 1
        if self.down is not None or self.failures >= cooldown.failures:
            self.down = Span(now, length(cooldown.lasts))

    def succeed(self) -> None:
        """Takes an answer in."""
        self.failures, self.down, self.probe = 0, None, None

    def measure(self, seconds: float, now: datetime) -> None:
        """Takes a time to the first token in."""
        share = 1.0
        if self.first_token_s is not None and self.measured_at is not None:
            age_s = max(0.0, (now - self.measured_at).total_seconds())
            share = max(LEAST_SHARE, 1 - 0.5 ** (age_s / HALF_LIFE_S))
        self.first_token_s = share * seconds + (1 - share) * (self.first_token_s or 0.0)
        self.measured_at = now


class Health:
    """What this process has seen of routes; each endpoint's for itself, and bounded.

    Args:
        most_routes: How many routes are remembered.
        most_in_flight: How many tries under way are.
    """

    def __init__(
        self, most_routes: int = MOST_ROUTES, most_in_flight: int = MOST_IN_FLIGHT
    ) -> None:
        self._most_routes = most_routes
        self._most_in_flight = most_in_flight
        # By endpoint and the whole of the route: a repaired one is another. The latest last.
        self._conditions: OrderedDict[tuple[str, Route], Condition] = OrderedDict()
        # The condition that a try counts in, and the second when it is given up.
        self._flights: dict[Mark, tuple[Condition, int]] = {}
        self._ends: dict[int, set[Mark]] = {}
        self._swept_s = 0
        self._told: tuple[Mark, datetime] | None = None

    def up(self, endpoint: str, route: Route, request: InferenceRequested, now: datetime) -> bool:
        """Returns whether a route may be sent a request; a half-open one only to probe it."""
        found = self._conditions.get((endpoint, route))
        if found is None:
            return True
        if found.down is not None:
            # The probe itself may be decided on once more.
            taken = found.probe is not None and found.probe[:2] != _named(request)
            if taken or found.down.holds(now):
                return False
        return found.avoided is None or not found.avoided.holds(now)

    def cools(self, endpoint: str, route: Route, now: datetime) -> bool:
        """Returns whether a route cools down."""
        found = self._conditions.get((endpoint, route))
        return found is not None and found.down is not None and found.down.holds(now)

    def up_at(self, endpoint: str, route: Route, now: datetime) -> datetime:
        """Returns when a route is to be tried again; now where nothing speaks against it."""
        found = self._conditions.get((endpoint, route))
        spans = (found.down, found.avoided) if found else ()
        return max([now, *(span.end for span in spans if span and span.holds(now))])

    def in_flight(self, endpoint: str, route: Route) -> int:
        """Returns how many tries were sent to a route and have not come back."""
        found = self._conditions.get((endpoint, route))
        return found.in_flight if found else 0

    def first_token_s(self, endpoint: str, route: Route) -> float | None:
        """Returns the mean time to a route's first token in seconds; None where none came yet."""
        found = self._conditions.get((endpoint, route))
        return found.first_token_s if found else None

    def sent(self, routed: InferenceRouted, now: datetime) -> None:
        """Takes in that a try is on its way; of a mirror's copy nothing. Twice is as once."""
        self._sweep(now)
        if routed.mirrored:
            return
        mark = _mark(routed)
        self._land(mark)
        condition = self._condition(routed)
        half_open = condition.down is not None and not condition.down.holds(now)
        if half_open and condition.probe is None:
            condition.probe = mark
        if len(self._flights) >= self._most_in_flight:
            self._give_up(next(iter(self._flights)))
        end = int((routed.request.deadline + GRACE).timestamp())
        condition.in_flight += 1
        self._flights[mark] = condition, end
        self._ends.setdefault(end, set()).add(mark)

    def observe(self, completed: InferenceCompleted, view: CatalogView, now: datetime) -> None:
        """Takes in what became of a try; told again at once, it counts once."""
        self._sweep(now)
        routed = completed.routed
        mark = _mark(routed)
        told = mark, completed.started_at
        if routed.mirrored or told == self._told:
            return
        self._told = told
        self._land(mark)
        condition = self._condition(routed)
        probed = condition.probe == mark
        if probed:
            condition.probe = None
        # What was sent before a route went down says nothing new of it.
        if probed or condition.down is None or routed.routed_at >= condition.down.since:
            self._judge(condition, completed, view, now)
        if completed.refusal is None:
            began = max(routed.routed_at, routed.not_before or routed.routed_at)
            heard = completed.first_token_at or completed.completed_at
            condition.measure(max(0.0, (heard - began).total_seconds()), now)
        elif completed.refusal.reason is Reason.RATE_LIMITED:
            condition.avoided = _avoided(completed.refusal, now) or condition.avoided

    def _judge(
        self, condition: Condition, completed: InferenceCompleted, view: CatalogView, now: datetime
    ) -> None:
        if completed.refusal is None:
            condition.succeed()
        elif completed.refusal.reason in FAILURES:
            endpoint = view.endpoints.get(completed.routed.request.endpoint)
            condition.fail(endpoint.spec.cooldown if endpoint else Cooldown(), now)

    def _condition(self, routed: InferenceRouted) -> Condition:
        key = routed.request.endpoint, routed.route
        found = self._conditions.setdefault(key, Condition())
        self._conditions.move_to_end(key)
        if len(self._conditions) > self._most_routes:
            self._conditions.popitem(last=False)
        return found

    def _land(self, mark: Mark) -> Condition | None:
        """Takes a try from those under way; returns the condition of its route, if it was one."""
        flight = self._flights.pop(mark, None)
        if flight is None:
            return None
        condition, end = flight
        condition.in_flight -= 1
        self._ends[end].discard(mark)
        if not self._ends[end]:
            del self._ends[end]
        return condition

    def _give_up(self, mark: Mark, at: datetime | None = None) -> None:
        """Counts a try as gone. Was it a probe that nobody answered, its route cools down anew."""
        condition = self._land(mark)
        if condition is not None and condition.probe == mark:
            condition.probe = None
            if at is not None and condition.down is not None:
                condition.down = Span(at, condition.down.lasts)

    def _sweep(self, now: datetime) -> None:
        """Gives up what nobody waits for; looks once a second."""
        now_s = int(now.timestamp())
        if now_s == self._swept_s:
            return
        self._swept_s = now_s
        for end in [each for each in self._ends if each < now_s]:
            for mark in list(self._ends[end]):
                self._give_up(mark, now)


def _avoided(refusal: Refusal, now: datetime) -> Span | None:
    wait_ms = min(refusal.retry_after_ms or 0, LONGEST_AVOIDED // timedelta(milliseconds=1))
    return Span(now, timedelta(milliseconds=wait_ms)) if wait_ms > 0 else None


def _named(request: InferenceRequested) -> tuple[str, str]:
    return request.tenant, request.request_id


def _mark(routed: InferenceRouted) -> Mark:
    return *_named(routed.request), routed.attempt
