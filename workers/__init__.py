"""Heavy hands: processes that hold models, providers and tools."""
