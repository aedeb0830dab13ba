"""Lower bounds on epsilon from scores of canaries: arrays in, numbers out; nothing here knows of training.

A canary is a unit of data (a record or a client) that was put in or left out by a fair coin, independently of all
others, and whose score is higher when it was in. Every figure is for add-or-remove-one of a single canary, one-sided:
scores that are lower when the canary was in show nothing, and give 0. How much each method assumes, least first:

- ``one_run``: (epsilon, delta)-DP and nothing else; scores may depend on each other. Loose.
- ``one_run_fdp``: the mechanism's trade-off function is one of a ``Family``; scores may depend on each other.
- ``clopper_pearson``: that family, and independent scores.
- ``mean_shift``: independent Gaussian scores of one variance, so no sampling (q = 1).
- ``sampled``: Poisson-sampled Gaussians, seen step by step; for q < 1.
- ``one_shot``: an estimate, without a level.

Canaries of several independent runs of the same mechanism may be put together.

What is not met makes a bound too high or too low: none of these is a proof of privacy, and only the first refutes a
claim whatever the mechanism is. ``headline`` says which of several bounds counts.
"""
