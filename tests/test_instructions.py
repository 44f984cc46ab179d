"""Remembered tokens are the tokenizer's own."""

import torch
from transformers import AutoTokenizer

from smolvla_core.config import TinyConfig
from smolvla_core.instructions import RememberingTokenizer
from smolvla_core.tiny_vlm import tiny_vlm_folder


def test_the_same_tokens_with_the_same_padding_and_each_set_once(cache_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_vlm_folder(TinyConfig(), str(cache_dir)))
    calls = []

    def counted(texts, **options):
        calls.append(texts)
        return tokenizer(texts, **options)

    remembering = RememberingTokenizer(counted)
    short, long = "open the drawer\n", "put the bottle into the box with your left hand\n"
    options = {"padding": "longest", "padding_side": "right", "return_tensors": "pt", "max_length": 64}
    for texts in ([short, short], [long, short], [short, long, long], [short]):
        found, expected = remembering(texts, **options), tokenizer(texts, **options)
        assert set(found) == set(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert calls == [[short], [short, long]] or calls == [[short], [long, short]]
