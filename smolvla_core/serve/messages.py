"""Messages of BEHAVIOR's policy protocol: msgpack with numpy arrays.

An array is the map ``{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [3, 2]}``, a
numpy scalar ``{b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f8"}``; a torch tensor of the 2025
evaluator comes as an array under ``b"__torch__"``, with its dtype by name. Format: BEHAVIOR-1K
``omnigibson/learning/utils/network_utils.py``, after openpi's. Nothing is ever unpickled: only plain
numbers have a dtype here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])|bool|u?int(8|16|32|64)|float(16|32|64)")
_MOST_DIMS = 8


class MessageError(ValueError):
    """A message that is not of the protocol; one line that says what is wrong with it."""


def pack(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        MessageError: it holds an array of no plain number, or what msgpack has no form for.
    """
    try:
        packed: bytes = msgpack.packb(message, default=_as_map)
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"the message cannot be packed: {error}") from None
    return packed


def unpack(data: bytes | str) -> Any:
    """The message in some bytes; arrays are read-only views of them.

    Raises:
        MessageError: they are no msgpack, or an array in them is not what it says.
    """
    if isinstance(data, str):
        raise MessageError("a text message; observations are binary messages of msgpack")
    try:
        return msgpack.unpackb(data, object_hook=_from_map, ext_hook=_no_extensions, strict_map_key=False)
    except MessageError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MessageError(f"the message is no msgpack ({type(error).__name__}: {error})") from None


def _as_map(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray | np.generic) and not _DTYPE.fullmatch(value.dtype.str):
        raise MessageError(f"an array of dtype {value.dtype} cannot be sent; numbers alone can")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} has no form in msgpack")


def _from_map(value: Mapping[Any, Any]) -> Any:
    if b"__ndarray__" in value or b"__torch__" in value:
        return _array(value)
    if b"__npgeneric__" in value:
        dtype, number = _dtype(value), value.get(b"data")
        if not isinstance(number, int | float):
            raise MessageError(f"a numpy scalar holds a {type(number).__name__}; it must hold a number")
        return dtype.type(number)
    return value


def _array(value: Mapping[Any, Any]) -> NDArray[Any]:
    dtype, data, shape = _dtype(value), value.get(b"data"), value.get(b"shape")
    if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) > _MOST_DIMS:
        raise MessageError(f"an array needs data of bytes and a shape of at most {_MOST_DIMS} dims")
    if not all(type(dim) is int and dim >= 0 for dim in shape):
        raise MessageError(f"an array's shape is {shape}; its dims must be whole numbers from 0 on")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise MessageError(f"an array of shape {shape} and dtype {dtype.str} has {len(data)} bytes of data")
    return np.frombuffer(data, dtype).reshape(shape)


def _dtype(value: Mapping[Any, Any]) -> np.dtype[Any]:
    name = value.get(b"dtype")
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise MessageError(f"an array's dtype is {str(text)[:40]!r}; numbers alone are taken, such as '<f4' and '|u1'")
    return np.dtype(text)


def _no_extensions(code: int, data: bytes) -> Any:
    raise MessageError(f"the message has an msgpack extension (type {code}), which the protocol does not")
