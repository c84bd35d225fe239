"""What a field must hold where its pattern alone says too little; no message quotes the value."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

SECRET_REFERENCE = re.compile(
    r"env:[A-Za-z_][A-Za-z0-9_]*|(?!env:)[a-z][a-z0-9-]*:(?!//)[^\s]+", re.ASCII
)
NOT_A_REFERENCE = (
    "this is a reference: env:NAME, file:PATH or a store's name and place; never the secret itself"
)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^@\s]+")


def secret_reference(said: str) -> str:
    """Returns where a secret is, never the secret: resolved by who uses it, when it is used."""
    if not SECRET_REFERENCE.fullmatch(said):
        raise ValueError(NOT_A_REFERENCE)
    return said


def address(said: str) -> str:
    """Returns an address that holds no user and no password."""
    if not ADDRESS.fullmatch(said):
        raise ValueError(
            "this is an address like https://models.example/v1, without user and password: "
            "they stand in user and, as a reference, in secret"
        )
    return said


def masked(masks: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
    """Returns masks of columns that there are, where columns are given: any other masks nothing."""
    columns = {each.name for each in info.data.get("columns", ())}
    for number, mask in enumerate(masks):
        if columns and mask.column not in columns:
            raise PydanticCustomError(
                "no_column", "no column has this name", {"within": (number, "column")}
            )
    return masks


SecretReference = Annotated[str, AfterValidator(secret_reference)]
Address = Annotated[str, AfterValidator(address)]
# On a field behind ``columns``.
Masking = AfterValidator(masked)
