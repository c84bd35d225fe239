"""The local stack: real services on loopback, one file each, under one supervisor."""
