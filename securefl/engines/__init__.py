"""Engines carry messages between server and clients: an engine is an exchange and its deadline."""
