"""Privacy accounting and enforcement. Imports no torch: a guarantee is recomputed from a ledger on any laptop."""
