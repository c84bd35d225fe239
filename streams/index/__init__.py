"""The index: rows of a table, as they change, become what is found by meaning."""
