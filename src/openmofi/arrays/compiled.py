"""The decorator of compiled functions: numba, its machine code kept on disk for the next process.

The first process after an installation compiles for some seconds and says so on a terminal. Where
neither the package's folder nor the user's cache can be written, every process compiles again; set
NUMBA_CACHE_DIR to a folder that can.
"""

import sys
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import event


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a function of arrays and numbers when it is first called."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no place for the cache
        return njit(nogil=True)(function)


class _Notice(event.Listener):
    """Says once that something is compiled."""

    said = False

    def on_start(self, event: Any) -> None:
        """Called before numba compiles."""
        if not self.said and sys.stderr.isatty():
            print("compiling, once after an installation: some seconds ...", file=sys.stderr)
        self.said = True

    def on_end(self, event: Any) -> None:
        """Called after numba has compiled."""


event.register("numba:compile", _Notice())
