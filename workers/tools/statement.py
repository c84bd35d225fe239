"""The one statement of a function in SQL, with its values beside it and never in it.

``:name`` stands for an argument, wherever PostgreSQL would read a value: not in quotes, dollar
quotes or comments, not in ``::type``, and not as the upper bound of a slice, ``a[1:n]``. An
argument that is left out is NULL. ``:idempotency_key`` is the id of the call, the same however
often it is delivered. A source that is one parameter and nothing else, ``:query``, is run as the
caller wrote it; it may only read.

A value keeps its type: whole numbers are int2, int4 or int8, others float8, lists of one type
arrays, objects and other lists jsonb; a text takes the type that its place asks for. Cast where
PostgreSQL needs to be told: ``:day::date``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex
from psycopg.types.json import Jsonb

from workers.tools import Call, Fault, ToolFailed

KEY = "idempotency_key"
MOST_CHARACTERS = 64 * 1024

# What PostgreSQL reads as one, as far as colons could be in it.
WORDS = regex.compile(
    r"""
      (?P<space> \s+ | --[^\n]* )
    | (?P<comment> /\* (?: [^*/]++ | \*(?!/) | /(?!\*) | (?&comment) )*+ \*/ )
    | (?P<quoted> [eE]'(?: [^'\\] | \\. | '' )*+' | '(?: [^'] | '' )*+' | "(?: [^"] | "" )*+" )
    | (?P<dollars> \$(?P<tag>(?:[^\W\d]\w*)?)\$ .*? \$(?P=tag)\$ )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<cast> :: | := )
    | (?<![\w\])"]) : (?P<parameter> [^\W\d]\w* )
    | (?P<other> \d+ | . )
    """,
    regex.DOTALL | regex.VERBOSE,
)
WHOLE = regex.compile(r"\s*:([^\W\d]\w*)\s*")
# What a query begins with.
READS = frozenset({"SELECT", "TABLE", "VALUES", "WITH"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What is sent.

    Attributes:
        text: The statement, with ``$1``, ``$2`` and so on for its values.
        values: Those values.
        reads: Whether it must change nothing.
        given: Whether the caller wrote it.
    """

    text: str
    values: Sequence[object] = ()
    reads: bool
    given: bool = False

    @property
    def fault(self) -> Fault:
        """Whose fault it is where the database does not understand it."""
        return Fault.ARGUMENTS if self.given else Fault.SOURCE


def stated(call: Call) -> Statement:
    """Returns the statement that a call comes to.

    Raises:
        ToolFailed: There is none that may be sent.
    """
    whole = WHOLE.fullmatch(call.spec.source)
    if whole is not None:
        return _given(call, whole[1])
    names: list[str] = []
    text = "".join(_translated(call, names))
    reads = call.spec.effect == "pure"
    if reads:
        _require_reading(call.spec.source, Fault.SOURCE)
    values = tuple(_value(_argument(call, name)) for name in names)
    return Statement(text=text, values=values, reads=reads)


def _given(call: Call, name: str) -> Statement:
    if call.spec.effect != "pure":
        raise ToolFailed(
            Fault.SOURCE, "what the caller writes may only be run where the effect is pure"
        )
    text = call.arguments.get(name)
    if not isinstance(text, str) or not text.strip() or len(text) > MOST_CHARACTERS:
        raise ToolFailed(
            Fault.ARGUMENTS,
            f"{name}: a statement of at most {MOST_CHARACTERS:,} characters belongs here",
        )
    _require_reading(text, Fault.ARGUMENTS)
    return Statement(text=text, reads=True, given=True)


def _translated(call: Call, names: list[str]) -> Iterator[str]:
    """Yields the pieces of a source, with numbers for its parameters; notes their names."""
    declared = call.spec.parameters.get("properties", {})
    for found in WORDS.finditer(call.spec.source):
        name = found["parameter"]
        if name is None:
            yield found[0]
            continue
        if name != KEY and name not in declared:
            raise ToolFailed(
                Fault.SOURCE, f"the statement asks for :{name}, which parameters does not have"
            )
        if name not in names:
            names.append(name)
        yield f"${names.index(name) + 1}"


def _require_reading(text: str, fault: Fault) -> None:
    first = next(
        (
            found[0]
            for found in WORDS.finditer(text)
            if found["comment"] is None and found["space"] is None and found[0] != "("
        ),
        "",
    )
    if first.upper() not in READS:
        kind = fault if not first or not first.isalpha() else Fault.FORBIDDEN
        raise ToolFailed(
            kind, f"it may only read: a statement that begins with {', '.join(sorted(READS))}"
        )


def _argument(call: Call, name: str) -> Any:
    return call.call_id if name == KEY else call.arguments.get(name)


def _value(argument: Any) -> object:
    """Returns an argument as PostgreSQL takes it."""
    if isinstance(argument, Mapping):
        return Jsonb(dict(argument))
    if not isinstance(argument, list):
        return argument
    kinds = {type(each) for each in argument}
    if kinds == {float, int}:
        return [float(each) for each in argument]
    return argument if len(kinds) <= 1 and not kinds & {dict, list} else Jsonb(argument)
