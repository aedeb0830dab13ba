"""Measurements of the toolkit, one module a subject: `python -m benchmarks NAME`."""
