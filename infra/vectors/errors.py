"""What can go wrong with the vector store. No message quotes a document."""

from __future__ import annotations


class VectorsUnreachable(Exception):
    """The store does not answer, or not in time: wait and try again.

    A write that ends so may have been made or not, or in part: repeat it with ``again=True``.
    """


class VectorsRefused(Exception):
    """The store refuses what it was asked for, and would again."""


class DimensionsWrong(ValueError):
    """A vector is not as long as those of the index; the message gives both lengths."""


class PlaceUnknown(LookupError):
    """There is no such generation of the index in the store."""


class SearchInvalid(ValueError):
    """A search cannot be answered; the message says why and what to ask instead."""
