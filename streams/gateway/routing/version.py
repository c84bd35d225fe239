"""Which version of a function a request asks for."""

from __future__ import annotations

from dataclasses import replace

from infra.catalog import CatalogView, Endpoint
from infra.identity import quoted
from schemas.events import InferenceRequested, Reason, Refusal


def of_version(
    request: InferenceRequested, endpoint: Endpoint, view: CatalogView
) -> Endpoint | Refusal:
    """Returns what is asked with a route to the version that a request names.

    Without one that is the newest, which the route has already.
    """
    if endpoint.kind != "function" or request.version is None:
        return endpoint
    found = view.functions.find(endpoint.name, request.version)
    if found is None:
        newest = max(view.functions[endpoint.name])
        return Refusal(
            reason=Reason.NOT_FOUND,
            message=f"{endpoint.name} has no version {quoted(request.version)}; "
            f"without one, it runs in its newest, {newest}",
            field="version",
        )
    return replace(
        endpoint, routes=tuple(replace(route, entity=found.entity) for route in endpoint.routes)
    )
