"""A SmolVLM of a few hundred thousand random weights, built locally: no hub, no download.

Its folder holds what lerobot asks a ``vlm_model_name`` for: the configuration, a tokenizer and a
processor. The text side is a byte-level BPE, so that any instruction can be written in it.
"""

import hashlib
import os
import shutil
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor
from transformers.models.smolvlm import SmolVLMVideoProcessor

from smolvla_core.config import TinyConfig
from smolvla_core.data.behavior.layout import EASTER_EGGS, instruction
from smolvla_core.data.legacy import cache_home

VOCABULARY = 768
HEAD_DIM = 16
SPECIAL_TOKENS = {
    "fake_image_token": "<fake_token_around_image>",  # nosec B105 # a word
    "global_image_token": "<global-img>",  # nosec B105 # a word
    "image_token": "<image>",  # nosec B105 # a word
    "end_of_utterance_token": "<end_of_utterance>",  # nosec B105 # a word
}
CORPUS = (
    "Take the three Easter eggs out of the wicker basket on the lawn in the garden",
    "then place them on the lawn next to a single tree so that all are next to the same tree",
    "choose any tree and none are left in the basket",
    "Pick up the bottle on the table and put it into the box with your left hand",
    "open the drawer, close the door, move the cup to the shelf, set the mousetraps on the floor",
)


def tiny_vlm_folder(config: TinyConfig, cache_dir: str | None) -> Path:
    """The folder of a tiny SmolVLM, made on the first call and named by its contents."""
    recipe = f"{config.model_dump_json(exclude={'init_seed', 'expert_width'})}{VOCABULARY}{SPECIAL_TOKENS}{CORPUS}"
    name = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    target = cache_home(cache_dir) / "tiny" / name
    if not target.is_dir():
        staging = target.with_name(f".{name}-{os.getpid()}")
        _write(config, staging)
        try:
            os.replace(staging, target)
        except OSError:  # another process was first; its folder is the same
            shutil.rmtree(staging)
    return target


def _write(config: TinyConfig, folder: Path) -> None:
    tokenizer = _train_tokenizer(config.whole_instruction)
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(), tokenizer=tokenizer, video_processor=SmolVLMVideoProcessor()
    )
    processor.save_pretrained(folder)
    heads = config.hidden_size // HEAD_DIM
    SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "hidden_size": config.hidden_size,
            "intermediate_size": 2 * config.hidden_size,
            "num_hidden_layers": config.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": HEAD_DIM,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 1024,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": config.vision_hidden_size,
            "intermediate_size": 2 * config.vision_hidden_size,
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.vision_hidden_size // HEAD_DIM,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        },
        scale_factor=config.shuffle,
        image_token_id=tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS["image_token"]),
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)


def _train_tokenizer(whole_instruction: bool) -> PreTrainedTokenizerFast:
    model = Tokenizer(models.BPE())
    # words apart, or merged into sentences
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not whole_instruction)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<|endoftext|>", *SPECIAL_TOKENS.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # lerobot ends an instruction with a new line
    corpus = (f"{instruction(EASTER_EGGS)}\n", *CORPUS) if whole_instruction else CORPUS
    model.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(  # nosec B106 # words
        tokenizer_object=model,
        pad_token="<pad>",
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        extra_special_tokens=SPECIAL_TOKENS,
    )
