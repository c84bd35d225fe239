"""Whether what a model says is what it was to say: arguments of tools, and answers with a schema.

A check takes a bounded number of steps, counted and not timed: whoever takes a run's journal in
again comes to the same. Patterns are left to the tools and to the engines that write by them, for
nothing else bounds how long they look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError

from schemas.events import FinishReason
from schemas.jsonschemas import OFFLINE, Keyword, kind_of, of_one_dialect, unique_items
from schemas.openai import MAX_NESTING, parsed

# Keywords of a schema that one check follows; each character of the text adds one.
MOST_KEYWORDS = 20_000
# Keywords within keywords: far from where Python gives up, wherever it is called from.
DEEPEST = 100
# Characters of a schema that are quoted to the model.
MOST_QUOTED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """What is wrong with what a model said.

    Attributes:
        said: In words for the model, who may be told its own text again.
        named: For everybody: names nothing that a model wrote.
    """

    said: str
    named: str


# By what that was cut, and what helps then.
CUT = {
    FinishReason.CONTENT_FILTER: Wrong(
        said="a filter of the provider cut it: say it in other words",
        named="a filter of the provider cut it: ask for something else",
    ),
    FinishReason.LENGTH: Wrong(
        said="it was cut at the most tokens that it may have: say it in fewer words",
        named="it was cut at the most tokens that it may have: raise max_tokens, or ask for less",
    ),
}


class _Endless(Exception):
    """A check takes too many steps."""


def wrong_arguments(arguments: str, parameters: Mapping[str, Any]) -> Wrong | None:
    """Returns what is wrong with the arguments of a call; None where they are right."""
    if not is_object(arguments):
        said = f"the arguments are no JSON object, or nested deeper than {MAX_NESTING}"
        return Wrong(said=said, named="no JSON object")
    return _broken(parsed(arguments), parameters, len(arguments))


def wrong_answer(content: str, schema: Mapping[str, Any]) -> Wrong | None:
    """Returns what is wrong with an answer that is to satisfy a schema; None where it does."""
    answer = parsed(content)
    # A JSON text that says a text has quotation marks around it, so it never says itself.
    if answer == content:
        return Wrong(said="the answer is no JSON", named="no JSON")
    return _broken(answer, schema, len(content))


def as_cut(wrong: Wrong | None, ended: FinishReason) -> Wrong | None:
    """Returns what is wrong with what was said, and what cut it, if anything did.

    Args:
        wrong: What is wrong; None where nothing is.
        ended: Why the model stopped.
    """
    cut = CUT.get(ended)
    if wrong is None or cut is None:
        return wrong
    return Wrong(said=f"{wrong.said}, and {cut.said}", named=f"{wrong.named}, and {cut.named}")


def is_object(document: str) -> bool:
    """Returns whether a text is a JSON object."""
    return isinstance(parsed(document), dict)


def _broken(value: object, schema: Mapping[str, Any], length: int) -> Wrong | None:
    try:
        error = next(_validator(schema, MOST_KEYWORDS + length).iter_errors(value), None)
    except (_Endless, ArithmeticError, RecursionError):
        said = "it takes too long to see whether the schema is kept to: say less"
        return Wrong(said=said, named="too much to check")
    # What a reference leads to may be no schema, or nothing: jsonschema fails there in many ways.
    except Exception:  # noqa: BLE001
        said = "the schema refers to something that it does not have"
        return Wrong(said=said, named=said)
    if error is None:
        return None
    said = f"{error.json_path} breaks {error.validator} of the schema: {_wanted(error)}"
    return Wrong(said=said, named=f"breaks {error.validator} of the schema")


def _wanted(error: ValidationError) -> str:
    """Returns what a keyword wanted, for the model: that it takes nothing else says too little."""
    schema, said = error.schema, error.instance
    if error.validator == "additionalProperties" and isinstance(schema, Mapping):
        known = [*schema.get("properties", {})]
        unknown = [name for name in said if name not in known] if isinstance(said, dict) else []
        return f"it has {_quoted(unknown)}, takes {_quoted(known)}"
    return _quoted(error.validator_value)


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:MOST_QUOTED]


def _validator(schema: Mapping[str, Any], steps: int) -> Any:
    kind = kind_of(schema)
    known = {**kind.VALIDATORS, "pattern": _any, "uniqueItems": unique_items}
    followed = _Followed(steps)
    bounded = {name: followed.counting(keyword) for name, keyword in known.items()}
    kind = jsonschema.validators.extend(kind, bounded)  # type: ignore[no-untyped-call]
    return kind(of_one_dialect(schema), registry=OFFLINE)


class _Followed:
    """Counts the keywords that a check follows, and how deep it is in them.

    A few lines of schema whose parts refer to each other twice are years of work.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._depth = 0

    def counting(self, follow: Keyword) -> Keyword:
        """Returns a keyword that counts itself.

        Raises:
            _Endless: When it is followed, and too much was followed before.
        """

        def keyword(
            validator: Any, wanted: object, instance: object, schema: object
        ) -> Iterator[ValidationError]:
            self._steps -= 1
            if not self._steps or self._depth == DEEPEST:
                raise _Endless
            self._depth += 1
            try:
                yield from follow(validator, wanted, instance, schema) or ()
            finally:
                self._depth -= 1

        return keyword


def _any(validator: Any, wanted: object, instance: object, schema: object) -> None:
    """Takes every text."""
