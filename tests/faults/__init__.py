"""Faults: real processes and a real broker, killed in the middle of the work."""
