"""Actors on one organisation's Ray cluster: one trust domain, which protects nobody from whoever runs the cluster."""
