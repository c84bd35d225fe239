"""Personal data in texts: where it is, and of what kind."""

from streams.guards.pii.finding import find, load
from streams.guards.pii.span import Span, disjoint

__all__ = ["Span", "disjoint", "find", "load"]
