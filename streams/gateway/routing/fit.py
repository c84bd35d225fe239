"""What a route can do, and whether that is what a request needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infra.catalog import Endpoint
from infra.tokens import estimate, estimate_text
from schemas.events import InferenceRequested, Reason, Refusal, Role, Route, Task
from schemas.routing import RouteSpec


def uses_tools(request: InferenceRequested) -> bool:
    """Returns whether tools are offered, or were called earlier in the conversation."""
    return bool(request.tools) or any(
        turn.tool_calls or turn.role is Role.TOOL for turn in request.messages
    )


# What a request may need besides room, and which routes have it.
NEEDS: Mapping[str, tuple[Callable[[InferenceRequested], bool], Callable[[RouteSpec], bool]]] = {
    "json_schema": (lambda request: request.json_schema is not None, lambda way: way.json_schema),
    "tools": (uses_tools, lambda way: way.tools),
}
SAID = {"json_schema": "a JSON schema", "tools": "tools"}


def fitting(request: InferenceRequested, endpoint: Endpoint) -> tuple[Route, ...] | Refusal:
    """Returns the routes that can serve a request, in the order of the catalog, or why none can.

    Routes that only get copies serve nothing.
    """
    serving = [route for route in endpoint.routes if not endpoint.ways[route.name].mirror]
    able = [route for route in serving if is_able(request, endpoint.ways[route.name])]
    if not able:
        return _unfit(request, endpoint, serving)
    fit = tuple(route for route in able if has_room(request, endpoint.ways[route.name]))
    return fit or _too_long(request, endpoint, able)


def fits(request: InferenceRequested, way: RouteSpec) -> bool:
    """Returns whether a request fits a route."""
    return is_able(request, way) and has_room(request, way)


def is_able(request: InferenceRequested, way: RouteSpec) -> bool:
    """Returns whether a route can do what a request asks for, however long it is."""
    return all(has(way) for needs, has in NEEDS.values() if needs(request))


def has_room(request: InferenceRequested, way: RouteSpec) -> bool:
    """Returns whether prompt and completion fit into the context, as far as can be estimated."""
    return way.context_tokens is None or _room(request) <= way.context_tokens


def prompt_tokens(request: InferenceRequested) -> int:
    """Returns about how many tokens a model reads at one time: each input goes by itself."""
    if request.task is Task.CHAT:
        return estimate(request)
    longest = max((estimate_text(text) for text in request.inputs), default=0)
    return estimate_text(request.query or "") + longest


def _room(request: InferenceRequested) -> int:
    return prompt_tokens(request) + (request.sampling.max_tokens or 0)


def _unfit(request: InferenceRequested, endpoint: Endpoint, serving: list[Route]) -> Refusal:
    ways = [endpoint.ways[route.name] for route in serving]
    needed = [name for name, (needs, _) in NEEDS.items() if needs(request)]
    if not serving:
        message = f"the routes of {endpoint.name} only get copies; give it one that serves"
        return Refusal(reason=Reason.ROUTE_UNFIT, message=message, field="endpoint")
    # None has all that is needed: of what no route has at all, the first; else all of it together.
    lacks = [name for name in needed if not any(NEEDS[name][1](way) for way in ways)][:1] or needed
    said = " and ".join(SAID[name] for name in lacks)
    together = " together; each alone would fit" if len(lacks) > 1 else ""
    message = f"no route of {endpoint.name} takes {said}{together}: ask without"
    return Refusal(reason=Reason.ROUTE_UNFIT, message=message, field=lacks[0])


def _too_long(request: InferenceRequested, endpoint: Endpoint, able: list[Route]) -> Refusal:
    largest = max(endpoint.ways[route.name].context_tokens or 0 for route in able)
    prompt, completion = prompt_tokens(request), request.sampling.max_tokens or 0
    texts = "messages" if request.task is Task.CHAT else "inputs"
    shorter = prompt < largest and completion
    advice = f"set max_tokens to at most {largest - prompt}" if shorter else "shorten the prompt"
    return Refusal(
        reason=Reason.CONTEXT_EXCEEDED,
        message=f"about {prompt} tokens of prompt and {completion} of completion are more than "
        f"the {largest} that a route of {endpoint.name} takes: {advice}",
        field="sampling.max_tokens" if shorter else texts,
        limit=str(largest),
        used=str(prompt + completion),
    )
