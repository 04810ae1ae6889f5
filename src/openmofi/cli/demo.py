"""The verb `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json


@app.command
def demo(
    *,
    out: Annotated[Path, Out] = Path("demo"),
    size: Literal["small", "short", "full"] = "short",
    seed: int = 1,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Draw a small world of flags and run every stage on it, with real measurements.

    Example: openmofi demo --out demo

    Args:
        out: Directory to write; finished stages of an interrupted demo are kept.
        size: short compares captions with entities in three minutes; full trains all four recipes
            longer and on more photos; small only shows that everything runs.
        seed: Seed of the world, the order of the data and the initial weights.
        as_json: Print results.json.
    """
    from openmofi.demo.story import run_demo
    from openmofi.demo.tables import print_results

    results = run_demo(out, size=size, seed=seed)
    if as_json:
        print_json(results)
        return
    print_results(results, out)
