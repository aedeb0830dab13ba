"""Measurements: one module a subject, one table each; ``python -m benchmarks NAME [--quick] [--json FILE]``."""
