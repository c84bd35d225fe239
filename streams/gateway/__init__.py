"""The gateway: who may ask what, where it goes, and what the caller hears.

Two decisions, both pure. ``admit`` stands before the workers, ``release`` behind them; what they
need of each other travels inside the events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.provision import require
from schemas.topics import (
    INFERENCE_COMPLETED,
    INFERENCE_PARTS,
    INFERENCE_REFUSED,
    INFERENCE_REQUESTED,
    INFERENCE_WEIGHED,
    Topic,
)
from streams.gateway.admission import Admission
from streams.gateway.admit import admit
from streams.gateway.limits.ledger import Ledger
from streams.gateway.limits.settle import settling
from streams.gateway.release import release, release_part
from streams.gateway.rows import record_refusal
from streams.gateway.weighed import Weighing
from streams.steps import Fail, Runtime, Step, Work, steps

STEPS: Mapping[Topic[Any], Step] = {
    INFERENCE_COMPLETED: release,
    INFERENCE_PARTS: release_part,
    INFERENCE_REFUSED: record_refusal,
    INFERENCE_REQUESTED: admit,
}


def open_gateway(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Returns the work of the gateway.

    Raises:
        ProvisioningFailed: A topic that the catalog names does not exist.
    """
    require(runtime.kafka)
    ledger = Ledger(runtime, fail)
    return {
        **steps({**STEPS, INFERENCE_COMPLETED: settling(release)}, runtime, fail),
        INFERENCE_REQUESTED: Admission(INFERENCE_REQUESTED, admit, runtime, fail, ledger),
        INFERENCE_WEIGHED: Weighing(INFERENCE_WEIGHED, runtime, fail, ledger),
    }
