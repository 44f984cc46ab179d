"""This machine's GPUs: which a trial sees, and what of their memory is taken.

The memory is asked of NVIDIA's own program: a CUDA context would itself take some.
"""

import os
import subprocess  # nosec B404 # NVIDIA's own program, with fixed arguments

import ray

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def hide_those_not_given() -> None:
    """Hide all GPUs from this process where Ray gave it none: Ray would leave them visible, and torch take one."""
    if ray.is_initialized() and not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ[_VISIBLE] = ""


def least_free() -> float | None:
    """Bytes that are free on the GPU with the least; None where the program does not tell."""
    found = _asked("memory.free", None)
    return min(found) if found else None


def in_use() -> float:
    """Bytes that are in use on the first GPU that this process sees; 0 where the program does not tell."""
    first = os.environ.get(_VISIBLE, "0").split(",")[0]
    return next(iter(_asked("memory.used", first)), 0.0) if first else 0.0


def _asked(what: str, gpu: str | None) -> list[float]:
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    query += [f"--id={gpu}"] if gpu is not None else []
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)  # nosec B603 # as above
        return [float(mebibytes) * 2**20 for mebibytes in done.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
