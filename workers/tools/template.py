"""What a function in HTTP asks for: method, target and body, out of its source and a call.

The first line of the source is ``METHOD /path?query``, what follows is the body as JSON, if any. A
path alone stands for POST with all arguments as the body. In the first line,

* ``{name}`` is an argument: one segment of the path, or a value of the query;
* ``{+name}`` is several segments of the path, with slashes between them, or none;
* ``{?name}`` is an object whose members become the query; it stands at the end.

In the body the text ``"{name}"`` becomes the argument, of whatever type. What is left out of the
arguments goes with its pair of the query, or its member of the body; a path must have all of its
own.

Whatever an argument holds, it leads to the same host and below the same path: it is
percent-encoded, and a segment is never empty, ``.`` or ``..``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from workers.tools import Call, Fault, ToolFailed

METHODS = frozenset({"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"})
SAFE = frozenset({"GET", "HEAD"})
LINE = re.compile(r"(?:([A-Za-z]+) +)?(/[!-~]*)")
# Of RFC 6570, with a meaning of less: see above.
PLACE = re.compile(r"\{([+?]?)([A-Za-z_]\w*)\}")
WHOLE = re.compile(r"\{([A-Za-z_]\w*)\}")
MOST_TARGET = 8 * 1024
DOTS = frozenset({"", ".", ".."})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is sent.

    Attributes:
        method: In capitals.
        target: Path and query, encoded.
        body: JSON; None for none.
    """

    method: str
    target: str
    body: bytes | None = None


def asked(call: Call) -> Asked:
    """Returns what a call asks for.

    Raises:
        ToolFailed: The source is none, or the arguments fit nothing that may be asked for.
    """
    line, _, body = call.spec.source.strip().partition("\n")
    found = LINE.fullmatch(line.strip())
    method = (found[1] or "POST").upper() if found else ""
    if found is None or method not in METHODS or found[2].startswith("//"):
        raise ToolFailed(
            Fault.SOURCE, f"it begins with a method of {', '.join(sorted(METHODS))} and a path"
        )
    if call.spec.effect == "pure" and method not in SAFE:
        raise ToolFailed(Fault.SOURCE, "its effect is pure: only GET and HEAD are")
    if body.strip() and method in SAFE:
        raise ToolFailed(Fault.SOURCE, f"{method} has no body")
    target = _target(found[2], call)
    if found[1] is None:
        return Asked(method=method, target=target, body=_dumped(dict(call.arguments)))
    return Asked(method=method, target=target, body=_body(body, call) if body.strip() else None)


def _target(template: str, call: Call) -> str:
    plain, more, _ = template.partition("{?")
    tail = template[len(plain) :]
    path, _, query = plain.partition("?")
    pairs = [pair for each in query.split("&") if each for pair in _pairs(each, call)]
    if more:
        found = PLACE.fullmatch(tail)
        if found is None:
            raise ToolFailed(Fault.SOURCE, "{?name} stands at the end of its path")
        pairs += _members(found[2], call)
    target = _path(path, call) + ("?" + "&".join(pairs) if pairs else "")
    if len(target) > MOST_TARGET:
        raise ToolFailed(Fault.ARGUMENTS, f"its address has more than {MOST_TARGET} characters")
    return target


def _path(template: str, call: Call) -> str:
    """Returns a path, of which no segment leads elsewhere than it says."""
    return "/" + "/".join(_segment(each, call) for each in template.removeprefix("/").split("/"))


def _segment(template: str, call: Call) -> str:
    written = _filled(template, lambda found: _segments(found, call))
    if unquote(template) in (".", ".."):
        raise ToolFailed(Fault.SOURCE, "its path has a segment . or ..: leave it out")
    # No more than a slash at the end, and the root itself, where several may stand.
    several = "{+" in template
    parts = written.removesuffix("/" if several else "").split("/")
    if written != template and not DOTS.isdisjoint(parts) and not (several and not written):
        raise ToolFailed(
            Fault.ARGUMENTS, f"of {template} a segment would be empty, . or ..: say which it is"
        )
    return written


def _segments(found: re.Match[str], call: Call) -> str:
    sign, name = found[1], found[2]
    value = _text(_argument(name, call), name)
    if sign == "+":
        return "/".join(_encoded(each, name) for each in (value or "").removeprefix("/").split("/"))
    if value is None:
        raise ToolFailed(Fault.ARGUMENTS, f"{name}: its address is none without")
    if "/" in value:
        raise ToolFailed(Fault.ARGUMENTS, f"{name}: it is one segment of a path, without /")
    return _encoded(value, name)


def _encoded(segment: str, name: str) -> str:
    if "\\" in segment or not segment.isprintable():
        raise ToolFailed(Fault.ARGUMENTS, f"{name}: no path has such characters")
    return _quoted(segment, name)


def _pairs(template: str, call: Call) -> Iterator[str]:
    """Yields a pair of a query: for a list once for each of its values, for null not at all."""
    found = PLACE.search(template)
    value = None if found is None else _argument(found[2], call)
    if found is not None and isinstance(value, list):
        name = found[2]
        for each in value:
            yield template.replace(found[0], _quoted(_text(each, name) or "", name))
    elif found is None or value is not None:
        yield _filled(template, lambda at: _value(at, call))


def _value(found: re.Match[str], call: Call) -> str:
    if found[1]:
        raise ToolFailed(Fault.SOURCE, f"in a query {found[0]} is no value: write it as {{name}}")
    return _quoted(_text(_argument(found[2], call), found[2]) or "", found[2])


def _members(name: str, call: Call) -> Iterator[str]:
    value = _argument(name, call)
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ToolFailed(Fault.ARGUMENTS, f"{name}: an object of texts and numbers belongs here")
    for key, each in value.items():
        written = _text(each, name)
        if written is not None:
            yield f"{_quoted(key, name)}={_quoted(written, name)}"


def _filled(template: str, fill: Callable[[re.Match[str]], str]) -> str:
    if "{" in PLACE.sub("", template) or "}" in PLACE.sub("", template):
        raise ToolFailed(Fault.SOURCE, f"in {template} braces are around no name")
    return PLACE.sub(fill, template)


def _argument(name: str, call: Call) -> Any:
    if name not in call.spec.parameters.get("properties", {}):
        raise ToolFailed(Fault.SOURCE, f"it asks for {{{name}}}, which parameters does not have")
    return call.arguments.get(name)


def _text(value: Any, name: str) -> str | None:
    """Returns what an address says of a value; None for none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | float | int):
        return json.dumps(value)
    raise ToolFailed(Fault.ARGUMENTS, f"{name}: a text or a number belongs here")


def _quoted(value: str, name: str) -> str:
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise ToolFailed(Fault.ARGUMENTS, f"{name}: it is no text") from None


def _body(text: str, call: Call) -> bytes:
    try:
        template = json.loads(text)
    except (RecursionError, ValueError):
        raise ToolFailed(Fault.SOURCE, "its body is no JSON") from None
    return _dumped(_replaced(template, call))


def _replaced(template: Any, call: Call) -> Any:
    if isinstance(template, list):
        return [_replaced(each, call) for each in template]
    if isinstance(template, dict):
        filled = {key: (each, _replaced(each, call)) for key, each in template.items()}
        return {key: now for key, (was, now) in filled.items() if now is not None or was is None}
    found = WHOLE.fullmatch(template) if isinstance(template, str) else None
    return template if found is None else _argument(found[1], call)


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()
