"""A recurrent language model of words that is small enough for a telephone: a CIFG, input and output embedding tied.

As in Hard et al. 2018, "Federated Learning for Mobile Keyboard Prediction": one layer of an LSTM whose input gate is
what the forget gate leaves (Greff et al. 2017, variant CIFG), its output projected to the width of the embedding (Sak
et al. 2014), and the embedding used again to tell the next word. No peepholes, no dropout; no transformers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from securefl.errors import BadInput


class CIFG(nn.Module):
    """Of token ids, int64 of shape (n, length), the scores of each next one: float32, (n, length, vocabulary).

    With x_t the embedding of token t times the root of the width, p_t the projected output (p_0 = c_0 = 0) and s the
    logistic function:

        f = s(W_f [x_t, p_t-1] + b_f),  o = s(W_o [x_t, p_t-1] + b_o),  g = tanh(W_g [x_t, p_t-1] + b_g)
        c_t = f c_t-1 + (1 - f) g,  p_t = P (o tanh(c_t)),  scores_t = E p_t + b

    With 10,000 words, a width of 96 and 670 units: 1,422,250 parameters. No row's scores depend on another row. Raises
    ``BadInput`` for a size below 1, a vocabulary of 2^24 or more, or a bias of another shape.

    ``bias``: where b starts, such as the logarithm of public frequencies, shape (vocabulary,), so that no step is spent
    on telling frequent words from rare ones; None: at 0.
    """

    def __init__(
        self, vocabulary: int, width: int = 96, units: int = 670, bias: NDArray[np.float32] | None = None
    ) -> None:
        super().__init__()
        if not 1 <= vocabulary < 1 << 24 or min(width, units) < 1:
            raise BadInput(f"{vocabulary} words, width {width}, {units} units: at least 1 each, and words below 2^24")
        self.cell = _Cell(vocabulary, width, units)
        if bias is not None:
            if bias.shape != (vocabulary,):
                raise BadInput(f"a bias of shape {bias.shape} for {vocabulary} words: give one number a word")
            self.cell.output_bias = nn.Parameter(torch.from_numpy(bias.astype(np.float32)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # Ids as float32, which holds those below 2^24 exactly: what is whole, opacus takes for mixed precision.
        scores: torch.Tensor = self.cell(tokens.float())
        return scores


class _Cell(nn.Module):
    """All parameters in what torch sees as one layer: so each record's gradient is one, although E is used twice."""

    def __init__(self, vocabulary: int, width: int, units: int) -> None:
        super().__init__()
        # Forget, output and candidate, in this order; of the inputs first the embedding, then the projected output.
        self.gates = nn.Parameter(_uniform(3 * units, 2 * width))
        self.gate_bias = nn.Parameter(torch.zeros(3 * units))
        self.projection = nn.Parameter(_uniform(width, units))
        self.embedding = nn.Parameter(torch.randn(vocabulary, width) / math.sqrt(width))
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        width, units = self.projection.shape
        # Times the root of the width (Vaswani et al. 2017, section 3.4): of size 1 for the gates, small for the scores.
        words = functional.embedding(tokens.long(), self.embedding) * math.sqrt(width)
        # What the words give to the gates, of all steps at once: only the recurrent half waits for the step before.
        driven = functional.linear(words, self.gates[:, :width], self.gate_bias)
        recurrent = self.gates[:, width:]
        shown, cell = words.new_zeros(len(words), width), words.new_zeros(len(words), units)
        found = []
        for step in driven.unbind(1):
            forget, output, candidate = functional.linear(shown, recurrent).add(step).chunk(3, dim=1)
            cell = torch.lerp(candidate.tanh(), cell, forget.sigmoid())
            shown = functional.linear(output.sigmoid() * cell.tanh(), self.projection)
            found.append(shown)
        return functional.linear(torch.stack(found, 1), self.embedding, self.output_bias)


def _uniform(outputs: int, inputs: int) -> torch.Tensor:
    """As ``nn.Linear`` starts: within one over the root of the inputs."""
    return torch.empty(outputs, inputs).uniform_(-1, 1) / math.sqrt(inputs)
