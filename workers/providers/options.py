"""What a connection says beside its address, read into a dialect's own shape."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from schemas.kinds import ConnectionSpec

Shape = TypeVar("Shape")


def read(connection: ConnectionSpec, shape: type[Shape]) -> Shape:
    """Returns the options of a connection.

    Args:
        connection: The connection.
        shape: A dataclass; its fields are the options that there are.

    Raises:
        ValueError: An option is unknown, missing, or not of its kind; the message names it.
    """
    assert is_dataclass(shape)
    known = sorted(field.name for field in fields(shape))
    if unknown := sorted(connection.options.keys() - set(known)):
        raise ValueError(
            f"connections of type {connection.type} take no {', '.join(unknown)}; "
            f"they take {', '.join(known)}"
        )
    try:
        return TypeAdapter(shape).validate_python(connection.options)
    except ValidationError as problem:
        found = problem.errors(include_input=False, include_url=False, include_context=False)
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)
        raise ValueError(f"options of a connection of type {connection.type}: {said}") from None
