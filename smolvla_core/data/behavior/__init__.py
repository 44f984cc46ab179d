"""Import of BEHAVIOR's 2025 demonstrations: ``python -m smolvla_core.data.behavior SRC --task 6 --out DST``."""

from smolvla_core.data.behavior.importer import import_behavior, main

__all__ = ["import_behavior", "main"]
