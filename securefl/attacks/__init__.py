"""Attacks on the real protocol, one file each, and the table of what each protection does about each of them.

``settings`` are the table's columns, ``scene`` is a federation whose server is in the adversary's hands, ``cell`` is
what an attack reports.
"""
