"""Changes of rows, as the log has them: what a record says, and what becomes of its row."""
