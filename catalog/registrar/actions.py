"""What the catalog can be asked to do: the table of all actions, in alphabetical order.

A new action is one shape in ``arguments.py``, one function and one line here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from catalog.declared.problems import Invalid, nearest, shape_problems
from catalog.lineage import ancestry
from catalog.registrar import applying, arguments, reading, writing
from catalog.registrar.call import Call, Result, refused
from catalog.store.refusals import invalid


@dataclass(frozen=True, slots=True)
class Action:
    """An action: the shape of its arguments, and what it does with them.

    ``run`` raises CatalogRefused; then nothing of it is done.
    """

    arguments: type[arguments.Arguments]
    run: Callable[[Call, Any], Result]


ACTIONS: dict[str, Action] = {
    "alias": Action(arguments.Alias, writing.alias),
    "apply": Action(arguments.Apply, applying.apply),
    "create": Action(arguments.Create, writing.create),
    "delete": Action(arguments.Delete, writing.delete),
    "deny": Action(arguments.Privileges, writing.deny),
    "effective": Action(arguments.Effective, reading.tell_effective),
    "export": Action(arguments.Export, reading.export),
    "get": Action(arguments.Get, reading.get),
    "grant": Action(arguments.Privileges, writing.grant),
    "key-create": Action(arguments.KeyCreate, writing.key_create),
    "key-revoke": Action(arguments.KeyRevoke, writing.key_revoke),
    "key-rotate": Action(arguments.KeyRotate, writing.key_rotate),
    "lineage": Action(ancestry.Lineage, ancestry.lineage),
    "list": Action(arguments.List, reading.list_),
    "revoke": Action(arguments.Privileges, writing.revoke),
    "search": Action(arguments.Search, reading.search),
    "tag": Action(arguments.Tag, writing.tag),
    "update": Action(arguments.Update, writing.update),
    "version": Action(arguments.AddVersion, writing.version),
}


def read(action: str, body: str) -> tuple[Action, arguments.Arguments]:
    """Returns an action and its arguments.

    Raises:
        CatalogRefused: There is no such action, or its arguments have another shape.
    """
    found = ACTIONS.get(action)
    if found is None:
        raise invalid(f"there is no action {action[:60]!r}; {nearest(action, ACTIONS)}", "action")
    try:
        said = json.loads(body)
        # Half of a character can be written in JSON, but not be told to anybody.
        json.dumps(said, ensure_ascii=False).encode()
    except (RecursionError, ValueError):
        raise invalid("the body is no JSON, or holds what is no Unicode", "body") from None
    try:
        given = found.arguments.model_validate(said)
        given.check()
    except ValidationError as failure:
        raise refused(Invalid(shape_problems(failure, found.arguments))) from None
    except Invalid as problem:
        raise refused(problem) from None
    return found, given
