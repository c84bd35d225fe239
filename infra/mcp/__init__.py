"""Servers of MCP, the Model Context Protocol, through its official SDK."""
