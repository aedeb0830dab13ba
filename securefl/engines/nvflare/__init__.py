"""Separate organisations over NVIDIA FLARE: mutual TLS, sites that only dial out, and no code that travels."""
