"""How separate organisations get to know each other: invitation, request, admission, roster; and what each one keeps.

Two things travel by another channel than the files, so that who carries the files cannot change them: fingerprints,
read out on the telephone, and the roster's hash.
"""
