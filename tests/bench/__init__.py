"""Benchmarks: figures and ratios printed in one run, never asserted.

python -m tests.bench spine
python -m tests.bench lake
"""
