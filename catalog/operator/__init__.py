"""The command line of the catalog: a client of the bus."""
