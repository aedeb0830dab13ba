"""Models as others hand them over: files whose code is never run, and whose faults are typed errors.

Every call that reads them says ``trust_remote_code=False``: without, transformers asks whoever sits there. Weights are
read with ``use_safetensors=True``: the other format is a pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from securefl.errors import BadInput, SecureFLError


@contextmanager
def explained(source: str, unusable: Callable[[str], SecureFLError]) -> Iterator[None]:
    """Turn whatever is raised while ``source`` is read, or a model made of it, into ``unusable(why)``, in one line.

    Raises ``BadInput`` for a model that only code of its own can make.
    """
    try:
        yield
    except SecureFLError:
        raise
    except Exception as error:  # a config may hold anything, and there is no list of what that makes transformers raise
        if "custom code" in str(error):  # in transformers' own words
            raise BadInput(
                f"the model {source} brings code of its own, which is never run here: use a model whose kind "
                "(model_type) is among those of transformers"
            ) from error
        raise unusable(f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]) from error
