"""What clients hand to each other through a server that must not read it: the CKKS key, and models that were missed.

A key takes three exchanges: receivers sign one-use X25519 keys; a giver seals the key to each and signs what it sealed
to whom; receivers open their part. A package that no roster member signed is refused, or the server could seal a key of
its own. A model takes two: one who has it seals it once, under the key that all share; the server keeps that, and
hands it to whoever lacks it, with the signed tags that tell which model is the right one.
"""
