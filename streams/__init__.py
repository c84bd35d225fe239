"""Decisions: pure steps run by one loop."""
