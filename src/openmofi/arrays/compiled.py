"""The decorator of compiled functions: numba, with the machine code cached on disk.

The first process after an installation compiles for some seconds and says so on a terminal. If
neither the package's folder nor the user's cache is writable, every process compiles again; set
NUMBA_CACHE_DIR to a writable folder.
"""

import sys
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import event


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a function of arrays and numbers on its first call."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no writable folder for the cache
        return njit(nogil=True)(function)


class _Notice(event.Listener):
    """Says once that something is being compiled."""

    said = False

    def on_start(self, event: Any) -> None:
        """Called before numba compiles."""
        if not self.said and sys.stderr.isatty():
            print("compiling, once after an installation: some seconds ...", file=sys.stderr)
        self.said = True

    def on_end(self, event: Any) -> None:
        """Called after numba has compiled."""


event.register("numba:compile", _Notice())
