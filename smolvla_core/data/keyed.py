"""Random numbers by key: drawn anywhere, in any order, and always the same."""

import numpy as np


def keyed_generator(*key: int) -> np.random.Generator:
    """A generator that is a pure function of its key of non-negative integers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
