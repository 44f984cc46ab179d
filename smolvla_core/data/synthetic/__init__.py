"""A small scripted dataset in BEHAVIOR's 2025 layout: ``python -m smolvla_core.data.synthetic OUT``."""

from smolvla_core.data.synthetic.writer import main, write_synthetic

__all__ = ["main", "write_synthetic"]
