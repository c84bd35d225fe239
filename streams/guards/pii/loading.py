"""Loading what takes seconds to load, when it is first needed."""

from __future__ import annotations

from importlib import import_module
from threading import Lock
from typing import Any

_one_at_a_time = Lock()


def loaded(module: str) -> Any:
    """Returns a module, which is loaded once, whoever asks for it meanwhile.

    Raises:
        ImportError: It is not there.
    """
    # Modules of spaCy import each other: two threads that begin at once would each see half of one.
    with _one_at_a_time:
        return import_module(module)
