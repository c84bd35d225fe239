"""The tables' history: how a database of any age becomes the present one."""
