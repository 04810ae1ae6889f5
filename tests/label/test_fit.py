import json

import numpy as np
import pyarrow as pa
import pytest

from openmofi.errors import InputError
from openmofi.label.fit import fit_weights
from openmofi.label.score import load_weights
from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards


def _labels(folder, rows):
    shards = [Shard("s", "s.tar", "tar", 0, 0)]
    freeze_plan(folder, shards, {})
    table = pa.table({"key": [r[0] for r in rows], "entities": [r[1] for r in rows]})
    run_shards(lambda: lambda shard: ShardResult(table), shards, out=folder)
    return folder


def _world(rng, count=3000):
    """Draws mentions whose truth follows known weights: 1 log prior + 3 context + 2 (z - 1.5)."""
    rows, truth = [], {}
    for i in range(count):
        prior = rng.dirichlet([1, 1])
        context, z = rng.normal(size=2), rng.normal(size=2) * 1.5
        text = np.log(prior) + 3 * context
        logits = np.append(text - text.max() + 2 * z, 3.0)
        odds = np.exp(logits - logits.max())
        truth[str(i)] = "ab-"[rng.choice(3, p=odds / odds.sum())]
        terms = zip("ab", prior, context, z, strict=True)
        rows.append(
            (
                str(i),
                [
                    {"id": e, "start": 0, "prior": p, "context": c, "clip_z": q}
                    for e, p, c, q in terms
                ],
            )
        )
    return rows, truth


def test_known_weights_are_found_again(tmp_path, rng):
    rows, truth = _world(rng)
    found = fit_weights(_labels(tmp_path, rows), truth)
    assert found.log_prior == pytest.approx(1.0, rel=0.25)
    assert found.context == pytest.approx(3.0, rel=0.15)
    assert found.clip_z == pytest.approx(2.0, rel=0.15)
    assert found.nil_z == pytest.approx(1.5, rel=0.15)


def test_too_little_truth_is_refused(tmp_path, rng):
    rows, truth = _world(rng, count=40)
    with pytest.raises(InputError, match="covers 40 mentions"):
        fit_weights(_labels(tmp_path, rows), truth)


def test_weights_of_a_file_are_used_and_a_wrong_file_is_refused(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"log_prior": 1, "context": 2, "clip_z": 3, "nil_z": 4}))
    assert load_weights(path).clip_z == 3
    path.write_text('{"log_prior": 1}')
    with pytest.raises(InputError, match="does not hold weights"):
        load_weights(path)
