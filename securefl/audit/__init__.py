"""Audit: what a run is seen to leak, from below, beside the epsilon that is claimed for it, from above."""
