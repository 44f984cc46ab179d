"""How large a cache becomes, known before any weight is read, and how many frames have room in it."""

from dataclasses import dataclass

from smolvla_core.cache.home import Home, home_of, size_text
from smolvla_core.cache.sizes import embedding_bytes, kept_prefixes, picture_bytes
from smolvla_core.config import TrialConfig
from smolvla_core.trial import Inputs, training_frames


@dataclass(frozen=True)
class CachePlan:
    """What a trial, or a search whose trials all draw from one sample stream, needs of the cache."""

    folder: str
    kind: str
    """``embeddings`` or ``frames``."""
    frames: int
    """Values that are stored at most: of training frames in each of their views, and of held-out frames."""
    frame_bytes: int
    """Of one of them, over all cameras."""
    room: int
    """Bytes that they may take: the budget, or what the disk has."""
    fit: int | None
    """Training frames that have room, where not all have and their number is left open; None also where
    too few have to be trained on alone."""
    prefixes: int = 0
    """Bytes of what the VLM makes of frames, at most; 0 where it is not kept."""

    @property
    def bytes(self) -> int:
        """Of everything."""
        return self.frames * self.frame_bytes

    def text(self, thinned: bool = True) -> str:
        """In words.

        Args:
            thinned: whether only the frames that have room are trained on, as in a search.
        """
        what = "image embeddings" if self.kind == "embeddings" else "decoded frames"
        text = f"{what} of at most {self.frames:,} frames, {size_text(self.frame_bytes)} each: "
        text += f"{size_text(self.bytes)} in {self.folder}"
        if self.prefixes:
            text += f", and keys and values of images and instructions: {size_text(self.prefixes)}"
        if self.bytes <= self.room:
            return text
        text += f", which has room for {size_text(self.room)} (runtime.cache_gb, free disk)"
        if thinned and self.fit is not None:
            return (
                f"{text}: so all trials draw from the same {self.fit:,} training frames, a seeded sub-sample "
                "(data.frames sets another number)"
            )
        return f"{text}; the rest is computed whenever it is drawn"


def plan_cache(config: TrialConfig, inputs: Inputs) -> CachePlan | None:
    """What a trial needs of the cache; None where it is off.

    Raises:
        ConfigError: the cache's folder cannot be made.
    """
    home = home_of(config)
    if home is None:
        return None
    kind = "embeddings" if config.frozen_vlm and not config.augment.fresh_colors else "frames"
    size = embedding_bytes(config, inputs.interface) if kind == "embeddings" else picture_bytes(inputs.interface)
    views = (config.augment.color_views or 1) if kind == "embeddings" else 1
    total = training_frames(config.data)
    rows = min(total, config.data.frames or total)
    held_out = len(inputs.frames.rows)
    wanted = min(rows * views, config.optim.samples) + held_out
    prefixes = kept_prefixes(config, inputs.interface, held_out, wanted - held_out)
    # kept of all frames only where everything fits; else of those that are held out, which come first
    room = _room(home) - (prefixes.held_out if not prefixes.training else 0)
    fit = None
    if kind == "embeddings" and wanted * size > room and config.data.frames is None:
        fit = (room // size - held_out) // views
        # fewer than one frame a second would leave out what happens between them
        fit = fit if fit >= total / inputs.dataset.fps else None
    return CachePlan(str(home.folder), kind, wanted, size, room, fit, prefixes.held_out + prefixes.training)


def _room(home: Home) -> int:
    """What the cache may take in all, were everything else in it removed."""
    return min(home.budget, home.left() + home.used())
