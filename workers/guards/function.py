"""A function of the catalog decides. So far that is one of language ``http`` only.

Its source is a path below its connection; what is sent and answered is as with a service.
"""

from __future__ import annotations

from pydantic import ValidationError

from infra.catalog import CatalogView
from schemas.kinds import Described, FunctionVersionSpec, Version
from schemas.policies import FunctionRule
from workers.guards import Case, Office, Unjudged, Verdict
from workers.guards.http import post


async def ask_function(rule: FunctionRule, case: Case, office: Office) -> Verdict:
    """Returns what the function says.

    Raises:
        Unjudged: It cannot be called, or says nothing that can be read.
    """
    spec = found(rule.function, office.view)
    if spec.language != "http":
        raise Unjudged(
            f"its function is of language {spec.language}: tool workers run such, and there is "
            "none here; only functions of language http can judge"
        )
    if spec.connection is None:
        raise Unjudged("its function names no connection, and goes nowhere without")
    return await post(spec.connection, spec.source, case, office)


def found(name: str, view: CatalogView) -> FunctionVersionSpec:
    """Returns a version of a function: by number, by alias, or the newest.

    Raises:
        Unjudged: There is no such version, or it cannot be read.
    """
    function, _, wanted = name.partition("@")
    number = wanted if wanted.isdecimal() else _number(function, wanted, view)
    entry = view.entry("version", f"{function}@{number}")
    try:
        if entry is not None and entry[1] is not None:
            version = Version.model_validate_json(entry[1])
            return FunctionVersionSpec.model_validate(version.spec)
    except ValidationError:
        pass
    raise Unjudged(f"the catalog has no function {name} that can be read")


def _number(function: str, alias: str, view: CatalogView) -> int:
    """Returns the number of the version that an alias names; of the newest without one."""
    if alias:
        entry = view.entry("function", function)
        try:
            body = Described.model_validate_json((entry and entry[1]) or "{}")
        except ValidationError:
            return 0
        return body.aliases.get(alias, 0)
    numbers = (
        int(number)
        for kind, name, _, _ in view.entries()
        if kind == "version"
        and name.startswith(f"{function}@")
        and (number := name.rpartition("@")[2]).isdecimal()
    )
    return max(numbers, default=0)
