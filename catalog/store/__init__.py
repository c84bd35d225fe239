"""The catalog in PostgreSQL: the one place that writes it."""
