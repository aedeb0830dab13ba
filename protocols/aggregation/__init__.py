"""One aggregation protocol for any encoding, with pairwise masks or without (Bonawitz et al., CCS 2017, figure 4)."""
