"""A tokenizer that looks at an instruction once."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

_BATCHES = 256
"""Sets of instructions that are remembered; a dataset has few, and a batch most often one."""


class RememberingTokenizer:
    """A tokenizer that remembers: the same tokens and padding, without the work of every step.

    Padding depends on which instructions are together and not on how often each is there.

    Args:
        tokenizer: of transformers, called with texts and options.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._known = lru_cache(maxsize=_BATCHES)(self._tokenize)

    def __call__(self, texts: str | Sequence[str], **options: Any) -> dict[str, Tensor]:
        """Tokens and mask (B, L) of texts, as the tokenizer gives them."""
        given = [texts] if isinstance(texts, str) else list(texts)
        distinct = tuple(sorted(set(given)))
        places = [distinct.index(text) for text in given]
        return {key: value[places] for key, value in self._known(distinct, **options).items()}

    def _tokenize(self, texts: tuple[str, ...], **options: Any) -> dict[str, Tensor]:
        return dict(self.tokenizer(list(texts), **options))
