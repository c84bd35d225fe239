"""Everything outside the process, wrapped once."""
