"""Indexes: what is found in them, by whom, and what callers write to them."""
