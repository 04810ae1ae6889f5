"""The verb `serve`."""

from __future__ import annotations

import os
from pathlib import Path

from openmofi.cli.app import app


@app.command
def serve(
    index: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    model: str | None = None,
    kb: Path | None = None,
    data: Path | None = None,
    report: list[Path] | None = None,
) -> None:
    """Search, tag and look in a browser: serve an index, with a page and a REST interface.

    Example: openmofi serve index --port 8080

    Options that are not given default to the paths with which the index was made, if they still
    exist. The interface is described at /openapi.json.

    Args:
        index: Output of `openmofi index`, or a folder that contains it as index/, such as a demo,
            whose reports are shown, too.
        host: Address to listen on; one that others can reach needs --token.
        port: Port to listen on; 0 takes any free one.
        token: Token that every client needs; the default is OPENMOFI_TOKEN from the environment.
        model: The encoder; the default is the one the index was made with.
        kb: Knowledge base with the entities' names.
        data: Selection that kept the images, such as i2e/select/default.
        report: Output of `openmofi evaluate --out`, or its report.html. Repeatable.
    """
    # Before torch is loaded. Its threads otherwise wait for each other at full speed, and where
    # other work takes a core, an image takes ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from openmofi.serve import serve as run_server
    from openmofi.serve.place import find_shown

    shown, reports = find_shown(index)
    token = token or os.environ.get("OPENMOFI_TOKEN") or None
    run_server(
        shown,
        host=host,
        port=port,
        token=token,
        model=model,
        kb=kb,
        data=data,
        reports=report or reports,
    )
