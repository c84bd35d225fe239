"""What tells the vectors of one endpoint from those of another."""

from __future__ import annotations

from typing import Any

from infra.embedding import embedded_by
from tests.seed import changes, view_of

TENANT = "acme"
ROUTE = {"name": "local", "pool": "echo", "model": "echo"}


def test_another_model_or_another_policy_makes_other_vectors() -> None:
    def endpoint(name: str, **spec: object) -> dict[str, Any]:
        return {"kind": "endpoint", "name": f"main.tests.{name}", "spec": spec}

    policy = {"kind": "policy", "name": "main.tests.policy", "spec": {"rules": []}}
    other = {**ROUTE, "model": "other"}
    held = {"policies": ["main.tests.policy"]}
    view = view_of(
        [policy, endpoint("one", routes=[ROUTE]), endpoint("held", routes=[ROUTE], **held)]
    )
    one, held_one = (embedded_by(f"main.tests.{name}", TENANT, view) for name in ("one", "held"))
    seen = {one, held_one}
    for change in changes([policy, endpoint("one", routes=[other])]):
        view.apply(change)
    seen |= {embedded_by(f"main.tests.{name}", TENANT, view) for name in ("one", "held")}
    assert len(seen) == 4
    for change in changes([endpoint("twin", routes=[{**ROUTE, "name": "another"}])]):
        view.apply(change)
    assert embedded_by("main.tests.twin", TENANT, view) == one
    tenant = {"kind": "tenant", "name": TENANT, "spec": held}
    for change in changes([tenant]):
        view.apply(change)
    held_by_tenant = embedded_by("main.tests.twin", TENANT, view)
    assert held_by_tenant == embedded_by("main.tests.held", TENANT, view) != one
