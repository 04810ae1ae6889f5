"""Which rows of a table belong to a part of it, without a list of them all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Rows:
    """The rows of a table of `total` rows that are listed, or all that are not.

    A place is a row's number within the part.
    """

    total: int
    listed: Int[np.ndarray, " n"]
    """Ascending where they are left out."""
    are_left_out: bool

    @classmethod
    def all_but(cls, left_out: Int[np.ndarray, " n"], *, total: int) -> Rows:
        """Returns the other rows; in memory are only those that are left out, ascending."""
        return cls(total, left_out, True)

    def __len__(self) -> int:
        return self.total - len(self.listed) if self.are_left_out else len(self.listed)

    @property
    def left_out(self) -> Int[np.ndarray, " n"]:
        """The rows that do not belong, ascending."""
        if self.are_left_out:
            return self.listed
        return np.setdiff1d(np.arange(self.total), self.listed)

    def of(self, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the rows at some places."""
        if not self.are_left_out:
            return self.listed[places]
        before = self.listed - np.arange(len(self.listed))
        return places + np.searchsorted(before, places, side="right")

    def places(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the places of rows that belong."""
        if self.are_left_out:
            return rows - np.searchsorted(self.listed, rows)
        order = np.argsort(self.listed, kind="stable")
        return order[np.searchsorted(self.listed, rows, sorter=order)]

    def take(self, places: Int[np.ndarray, " n"]) -> Rows:
        """Returns the rows at some places alone, in this order."""
        return Rows(self.total, self.of(places), False)
