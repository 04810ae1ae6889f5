"""The numbers of a comparison, which add up: labels before and after, changes by cause and kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from openmofi.diff.causes import Cause
from openmofi.diff.changes import KINDS, BlockChanges
from openmofi.diff.matching import AlignedRows
from openmofi.diff.version import LabelVersion


@dataclass(frozen=True)
class DiffSummary:
    """What changed, in numbers."""

    before: Path
    after: Path
    pairs_in_both: int
    pairs_only_before: int
    pairs_only_after: int
    labels_before: int
    labels_after: int
    kept: int
    """Labels that both have."""
    kept_with_other_score: int
    gained: int
    lost: int
    changed: int
    causes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Changes by cause, and of these the gained, lost and changed ones."""

    @property
    def changes(self) -> int:
        """Changes of every kind."""
        return self.gained + self.lost + self.changed


class ChangeCounts:
    """Sums over the blocks."""

    def __init__(self):
        self._pairs: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._changes: Counter[tuple[str, str]] = Counter()

    def add(self, block: AlignedRows, found: BlockChanges) -> None:
        """Counts a block."""
        where = "both" if block.is_matched else "before" if len(block.before) else "after"
        self._pairs[where] += block.num_pairs
        for name in ("before", "after", "kept", "kept_with_other_score"):
            self._labels[name] += getattr(found, name)
        grouped = found.table.group_by(["cause", "kind"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            self._changes[row["cause"], row["kind"]] += row["count_all"]

    def summary(self, before: LabelVersion, after: LabelVersion) -> DiffSummary:
        """Returns the sums, which add up."""
        kinds = {kind: sum(n for (_, k), n in self._changes.items() if k == kind) for kind in KINDS}
        labels = self._labels
        assert labels["before"] == labels["kept"] + kinds["lost"] + kinds["changed"]
        assert labels["after"] == labels["kept"] + kinds["gained"] + kinds["changed"]
        causes = {}
        for cause in Cause:
            of_kind = {kind: self._changes[cause.title, kind] for kind in KINDS}
            if total := sum(of_kind.values()):
                causes[cause.title] = {"changes": total, **of_kind}
        return DiffSummary(
            before.path,
            after.path,
            pairs_in_both=self._pairs["both"],
            pairs_only_before=self._pairs["before"],
            pairs_only_after=self._pairs["after"],
            labels_before=labels["before"],
            labels_after=labels["after"],
            kept=labels["kept"],
            kept_with_other_score=labels["kept_with_other_score"],
            **kinds,
            causes=dict(sorted(causes.items(), key=lambda item: -item[1]["changes"])),
        )
