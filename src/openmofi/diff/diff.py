"""Two versions of labels -> every label that was gained, lost or changed, each with its cause.

A version is the output of `label`, or a selection from it. The pairs are read shard by shard, so
that memory does not grow with them; see `matching`, `changes` and `causes`.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from openmofi.diff.changes import find_changes
from openmofi.diff.examples import ChangeExamples
from openmofi.diff.matching import blocks
from openmofi.diff.report import write_page
from openmofi.diff.summary import ChangeCounts, DiffSummary
from openmofi.diff.version import open_version
from openmofi.errors import InputError
from openmofi.files.folders import local_file, replace_file
from openmofi.progress import progress
from openmofi.schema import CHANGES


def diff(
    before: Path | str,
    after: Path | str,
    *,
    out: Path | str | None = None,
    table: Path | str | None = None,
    images: int = 60,
) -> DiffSummary:
    """Compares two versions of labels.

    Args:
        before: output of `label`, or a selection from it, such as i2e/select/default.
        after: the other one, of the same kind.
        out: HTML page with examples of every cause.
        table: Parquet file with all changes (schema.CHANGES).
        images: examples on the page.

    Raises:
        InputError: a folder is neither, or they are not of one kind.
        MismatchError: the labels were made again after a selection.
    """
    versions = open_version(before), open_version(after)
    if (versions[0].selection is None) != (versions[1].selection is None):
        one, other = sorted(versions, key=lambda version: version.selection is None)
        raise InputError(
            f"{str(one.path)!r} is a selection, but {str(other.path)!r} is the output of `label`; "
            "expected two selections, such as i2e/select/a and i2e/select/b, or two outputs."
        )
    page = local_file(out) if out is not None else None
    examples = ChangeExamples(images if page else 0)
    counts = ChangeCounts()
    with ExitStack() as stack:
        writer = None
        if table is not None:
            path = local_file(table)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = stack.enter_context(replace_file(path))
            writer = stack.enter_context(pq.ParquetWriter(partial, CHANGES, compression="zstd"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openmofi-diff-")))
        total = sum(version.num_pairs for version in versions)
        bar = stack.enter_context(progress("compare", total=total, unit="pairs"))
        for block in blocks(*versions, folder):
            found = find_changes(block, *versions)
            counts.add(block, found)
            examples.add(found.table)
            if writer and len(found.table):
                writer.write_table(found.table)
            bar.advance(len(block.before) + len(block.after))
    summary = counts.summary(*versions)
    if page:
        write_page(page, summary, examples, *versions)
    return summary
