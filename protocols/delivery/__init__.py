"""Handing a secret from one client to others through a server that must not read it: CKKS keys, and missed models.

Three exchanges: receivers sign one-use X25519 keys; a giver seals the secret to each and signs what it sealed to whom;
receivers open their part. A package that no roster member signed is refused, or the server could seal a key of its own.
"""
