"""What a request must satisfy to be admitted: an ordered table of pure checks.

Each looks at one thing and returns a refusal or nothing; the first refusal wins. A new rule is one
function here and one line in ``CHECKS``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import Refusal
from streams.gateway.asked import Asked
from streams.gateway.checks.deadline import deadline_ahead
from streams.gateway.checks.endpoint import asking_granted, endpoint_known
from streams.gateway.checks.form import (
    messages_sensible,
    previous_sensible,
    sampling_sensible,
    schemas_sensible,
    task_sensible,
)
from streams.gateway.checks.kind import kind_fits
from streams.gateway.checks.search import search_sensible
from streams.gateway.checks.sender import (
    id_own,
    parts_address_owned,
    reply_address_owned,
    sender_proven,
)
from streams.gateway.checks.size import size_allowed
from streams.gateway.checks.tool import arguments_sensible, version_there

Check = Callable[[Asked, CatalogView, datetime], Refusal | None]

CHECKS: tuple[Check, ...] = (
    size_allowed,
    sender_proven,
    id_own,
    reply_address_owned,
    parts_address_owned,
    deadline_ahead,
    endpoint_known,
    asking_granted,
    kind_fits,
    task_sensible,
    messages_sensible,
    previous_sensible,
    sampling_sensible,
    schemas_sensible,
    search_sensible,
    arguments_sensible,
    version_there,
)


def first_refusal(asked: Asked, view: CatalogView, now: datetime) -> Refusal | None:
    """Returns what the first failing check says, or None when the request is admitted."""
    return next((refusal for check in CHECKS if (refusal := check(asked, view, now))), None)
