"""Reads plain values from a pickle: numbers, strings, lists, dictionaries and numpy arrays.

A pickle can name any function for its reader to call. This reader knows only the names with which
numpy pickles arrays, and even these stand for the plain functions below: nothing that a file names
is ever imported or called.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from openmofi.errors import InputError


def plain_values(data: bytes) -> Any:
    """Returns what Python 2 or 3 pickled; arrays become `PickledArray`.

    Raises:
        InputError: the pickle is damaged, or names anything but values and arrays.
    """
    try:
        return _Reader(io.BytesIO(data), encoding="latin1").load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can make Python's reader raise anything
        raise InputError("it is not a pickle, or is damaged") from error


class PickledArray:
    """An array of numbers, filled in once the file gives its content."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        """Takes (version, shape, dtype, Fortran order?, bytes) as numpy writes them."""
        _, shape, dtype, fortran, raw = state
        self.values = _array(raw, dtype, shape, "F" if fortran else "C")


class _DType:
    """What numpy.dtype(name) is pickled as; the byte order follows later."""

    __slots__ = ("name", "order")

    def __init__(self, name: object) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", name):
            raise InputError(f"it holds an array of {str(name)[:20]!r} instead of numbers")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        """Takes (version, byte order, ...)."""
        if state[1] not in ("<", ">", "=", "|"):
            raise InputError("it holds an array with an unknown byte order")
        self.order = state[1]


def _array(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    content = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 wrote bytes as str
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _DType):
        raise InputError("it holds an array without bytes of numbers")
    values = np.frombuffer(content, dtype=np.dtype(dtype.order + dtype.name))
    if not isinstance(shape, tuple) or math.prod(shape) != len(values) or order not in ("C", "F"):
        raise InputError("it holds an array whose shape does not fit its content")
    return values.reshape(shape, order=order)


def _whole_array(raw: object, dtype: object, shape: object, order: object) -> PickledArray:
    array = PickledArray()
    array.values = _array(raw, dtype, shape, order)
    return array


def _bytes(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise InputError("it holds bytes in an unknown form")
    return text.encode("latin1")


def _no_bytes(*content: object) -> bytes:
    if content:
        raise InputError("it holds bytes in an unknown form")
    return b""


def _only_named(*_: object) -> None:
    raise InputError("it makes an array in an unknown way")


_KNOWN: dict[tuple[str, str], Callable] = {
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "dtype"): lambda name, *_: _DType(name),
    ("numpy", "ndarray"): _only_named,
}
for _package in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_package}.multiarray", "_reconstruct"] = lambda *_: PickledArray()
    _KNOWN[f"{_package}.multiarray", "scalar"] = lambda dtype, raw: _array(
        raw, dtype, (), "C"
    ).item()
    _KNOWN[f"{_package}.numeric", "_frombuffer"] = _whole_array


class _Call:
    """Calls a known function; a new one for each name, because a file can change what it gets."""

    __slots__ = ("function",)

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)


class _Reader(pickle._Unpickler):
    """Python's own reader; the one in C allocates as much memory as a damaged file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """Replaces Python's import of a name."""
        if (module, name) not in _KNOWN:
            raise InputError(f"it names {module}.{name}, but only values and arrays are read")
        return _Call(_KNOWN[module, name])

    def get_extension(self, code: int) -> None:
        """Replaces the lookup of a name that a program registered under a number."""
        raise InputError(f"it names the extension {code}, but only values and arrays are read")
