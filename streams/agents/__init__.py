"""Agents: runs that go on by what comes, each step of them on the log."""
