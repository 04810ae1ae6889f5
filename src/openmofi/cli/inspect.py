"""The verb `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, quoted, say_next

if TYPE_CHECKING:
    pass


@app.command
def inspect(
    i2e: Path,
    /,
    *,
    name: str = "default",
    out: Annotated[Path | None, Out] = None,
    images: int = 60,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write one HTML page that shows what was kept, what was refused, and why.

    Example: openmofi inspect i2e --name strict --out look.html

    Args:
        i2e: Output of `openmofi label`.
        name: Name of the selection.
        out: HTML file to write; the default is inspect.html in the selection's folder.
        images: Images per section.
        as_json: Print the page's path as JSON.
    """
    from openmofi.select.report import inspect as run_inspect

    page = run_inspect(i2e, name=name, out=out, images=images)
    if as_json:
        print_json({"page": page})
        return
    print(f"wrote {page}")
    say_next(f"openmofi train RECIPE --data {quoted(i2e / 'select' / name)} --out run")
