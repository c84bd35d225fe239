"""Limits and budgets: what somebody may use within a window that slides, or at one time.

A request counts with an estimate until its real use is known. What is counted lies in a ledger on
the log; counters are the sum of its entries, so that whoever takes them over knows what was used.
"""
