"""The contract: what is said on the bus."""
