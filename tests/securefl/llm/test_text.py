from __future__ import annotations

from pathlib import Path

import pytest

from securefl.errors import DataUnavailable
from securefl.llm.text import Tokens, tokens
from securefl.objective import IGNORED
from securefl.pilots.minilm_topics import base


@pytest.fixture
def own() -> Tokens:
    return tokens(str(base()))


def test_texts_become_rows_with_what_the_model_expects_around_them(own: Tokens) -> None:
    rows = own.rows(["what causes anemia?", "x " * 50], 8)
    assert rows.shape == (2, 8)
    assert rows[0].tolist() == [*own.tokenizer.encode("what causes anemia?"), own.pad, own.pad][:8]
    assert (rows[1] != own.pad).all()
    assert own.decode(rows[0].tolist()) == "what causes anemia?"


def test_each_token_of_an_answer_is_expected_where_the_one_before_it_stands(own: Tokens) -> None:
    features, labels = own.answers([("what causes anemia?", "lack of iron")], 12, 3)
    asked, answer = own.encode("what causes anemia?")[:3], own.encode("lack of iron")
    end = [] if own.end is None else [own.end]
    whole = [*asked, *answer, *end]
    assert features[0, : len(whole) - 1].tolist() == whole[:-1]
    assert labels[0, 2 : len(whole) - 1].tolist() == [*answer, *end]
    assert (labels[0, :2] == IGNORED).all() and (labels[0, len(whole) - 1 :] == IGNORED).all()


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="has no tokenizer"):
        tokens(str(tmp_path))
