"""The ``site.toml`` that ``securefl site init`` writes, to be edited."""

from __future__ import annotations

from string import Template
from typing import Final

_SITE: Final = Template("""\
# What this site's owner decides. The server never sees this file.
# Check it at any time:  securefl site check FOLDER

name = "$name"             # as you were admitted

[data]
name = "$name-data"        # the privacy ledger is kept under this name: never reuse it for other records
loader = "package.module:function"     # called with the site's name; returns (features, labels)
# held_out = "package.module:function"   # like the loader, with other records, to measure on
# test = "package.module:function"       # what it returns is declared public
# pilot = "breast-cancer"                # instead of all these, for a trial; then leave out [model]

[model]
factories = ["package.module:function"]  # what may be trained here; each returns a fresh torch.nn.Module

[budget]                   # the most that may ever be spent on this data; without it, jobs without privacy only
epsilon = 3.0
delta = 1e-5               # well below one over the number of records
unit = "record"            # or "patient" (nobody has two records), or "client"

[policy]                   # what this site takes part in
minimum = 3                # fewest sites whose sum may be formed
members = 3                # fewest sites in a run
colluders = 0              # sites that may work with the server, and still learn nothing of yours
protections = ["secagg", "ckks"]
share = 1.0                # the most that your update may weigh in the smallest sum
private_only = true        # no job without differential privacy
exact_metrics = false      # true: exact results on held-out records may leave, which no epsilon covers
same_cohort = "never"      # "round", "plan": all sums over one model, or in a run, are of the same sites

[accept]
rule = "none"              # each plan is approved by hand; "policy": whatever the policy allows
plans = []                 # plans that need no approval, by their SHA-256

[training]
device = "cpu"
""")


def site(name: str) -> str:
    """For a site of this name."""
    return _SITE.substitute(name=name)
