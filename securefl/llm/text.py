"""The tokenizer that a model comes with: text to rows of tokens, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from securefl.errors import DataUnavailable
from securefl.llm.base import quiet, require
from securefl.llm.foreign import explained
from securefl.objective import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INSTRUCTION: Final = "{}\n"  # behind the question; models that were tuned to chat have a template of their own


@dataclass(frozen=True)
class Tokens:
    """A model's own tokenizer. ``pad`` is that of the tokenizer or, where it has none, the one that ends a text."""

    tokenizer: PreTrainedTokenizerBase = field(repr=False)

    @property
    def end(self) -> int | None:
        return cast("int | None", self.tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        own = self.tokenizer.pad_token_id
        return int((self.end or 0) if own is None else own)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text that goes on."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def rows(self, texts: Sequence[str], length: int) -> NDArray[np.int64]:
        """Whole texts, with the tokens that the model expects around them, cut off and filled up: (n, length)."""
        found = np.full((len(texts), length), self.pad, np.int64)
        for row, text in enumerate(texts):
            tokens = self.tokenizer.encode(text, truncation=True, max_length=length)
            found[row, : len(tokens)] = tokens
        return found

    def answers(
        self, pairs: Sequence[tuple[str, str]], length: int, prompt: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Questions, of ``prompt`` tokens at most, and answers: rows (n, length), and at each token of an answer what
        comes there; nothing else counts. An answer that fits is followed by the token that ends a text.
        """
        features = np.full((len(pairs), length), self.pad, np.int64)
        labels = np.full((len(pairs), length), IGNORED, np.int64)
        for row, (question, answer) in enumerate(pairs):
            asked = self.encode(_INSTRUCTION.format(question))[:prompt]
            end = [] if self.end is None else [self.end]
            whole = [*asked, *self.encode(answer), *end][: length + 1]
            features[row, : len(whole) - 1] = whole[:-1]
            labels[row, max(len(asked) - 1, 0) : len(whole) - 1] = whole[max(len(asked), 1) :]
        return features, labels


@lru_cache(maxsize=4)
def tokens(source: str) -> Tokens:
    """That of a local folder or of a model on the hub.

    Raises ``DataUnavailable`` where there is none, ``BadInput`` for one that is code of its own, which is never run.
    """
    require()
    from transformers import AutoTokenizer

    with quiet(), explained(source, lambda why: _unreadable(source, why)):
        return Tokens(AutoTokenizer.from_pretrained(source, trust_remote_code=False))


def _unreadable(source: str, why: str) -> DataUnavailable:
    return DataUnavailable(f"{source!r} has no tokenizer that can be read ({why}): name a folder that has")
