"""Several sequences of one person as one record, none of which sees another: what clips by person, not by sequence.

A record is a row of tokens (k, length). It is computed as one sequence of k * length tokens, in which each token sees
those before it in its own sequence, counted from that sequence's start. So every layer has one row a person, and what
opacus takes and ``private`` clips is the person's gradient: that of the mean over all tokens that count.
"""

from __future__ import annotations

import torch


def within_blocks(tokens: torch.Tensor, pad: int, dtype: torch.dtype) -> torch.Tensor:
    """Of tokens (n, k, length) what is added to attention's scores, (n, 1, k * length, k * length): 0 where a token is
    seen, the least number elsewhere. A token sees itself always, so that no row of nothing divides by zero.
    """
    _, blocks, length = tokens.shape
    place = torch.arange(blocks * length, device=tokens.device)
    causal = place[:, None] >= place[None, :]
    together = place[:, None] // length == place[None, :] // length
    seen = (tokens.flatten(1) != pad)[:, None, :] & (causal & together)[None]
    seen |= torch.eye(blocks * length, dtype=torch.bool, device=tokens.device)
    hidden = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=tokens.device)
    return hidden.masked_fill_(seen, 0.0)[:, None]


def positions(tokens: torch.Tensor) -> torch.Tensor:
    """Each token's place in its own sequence: (n, k * length)."""
    count, blocks, length = tokens.shape
    return torch.arange(length, device=tokens.device).repeat(blocks).expand(count, -1)
