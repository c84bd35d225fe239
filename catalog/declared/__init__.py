"""Declarative apply: from documents to what must be changed."""
