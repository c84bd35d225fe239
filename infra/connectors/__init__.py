"""Change capture by Debezium: what a connector is told, and what it needs of database and broker.

Pure naming and settings in ``source.py``; one file for each side that is asked.
"""
