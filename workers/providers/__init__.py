"""Providers: one file for each way to get a completion."""
