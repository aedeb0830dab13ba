"""Text as its UTF-8 bytes, one token each: nothing to be learned of anybody's words, and no word unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.objective import IGNORED

END: Final = 256
PAD: Final = 257
VOCABULARY: Final = 258


class Bytewise:
    """Tokens 0 to 255 are bytes; then one that ends a text, and one that fills up."""

    end: int | None = END

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        return bytes(token for token in tokens if token < END).decode(errors="replace")


def predictions(
    pairs: Sequence[tuple[str, str]], length: int, prompt: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Questions and answers as tokens (n, length) and, at each, the next one: of the answer, nothing else counts.

    A question is cut off at ``prompt`` bytes, an answer where the row ends; one that fits is followed by ``END``.
    """
    features = np.full((len(pairs), length), PAD, np.int64)
    labels = np.full((len(pairs), length), IGNORED, np.int64)
    for row, (question, answer) in enumerate(pairs):
        asked = [*question.encode()[:prompt], *b"\n"]
        whole = [*asked, *answer.encode(), END][: length + 1]
        features[row, : len(whole) - 1] = whole[:-1]
        labels[row, len(asked) - 1 : len(whole) - 1] = whole[len(asked) :]
    return features, labels
