"""Arrays of evidence -> their calibration, as `select` computes it from what lies on disk."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from openmofi.select.calibrate import Calibration, calibrate
from openmofi.select.evidence import EvidenceBlock, LabelEvidence


def calibrate_several(
    observed, mismatched, *, confused=None, image=None, splits=(), blocks=1, **wanted
) -> Calibration:
    """Calibrates a threshold.

    Args:
        observed: [n].
        mismatched: [n, k].
        confused: [n]; the default is 0.
        image: [n]; by default each has its own.
        splits: values that cut the evidence into parts.
        blocks: number of blocks.
        wanted: passed on.
    """
    count = len(observed)
    columns = [observed, mismatched]
    columns += [np.zeros(count) if confused is None else confused]
    image = np.arange(count) if image is None else image
    order = np.argsort(image, kind="stable")
    ends = np.searchsorted(image[order], [i * image.max() // blocks for i in range(1, blocks)])
    with TemporaryDirectory() as folder:
        evidence = LabelEvidence(Path(folder) / "evidence", splits, threads=2)
        for mine in np.split(order, ends):
            evidence.add(EvidenceBlock(*(column[mine] for column in (*columns, image))))
        return calibrate(evidence, **wanted)
