"""The verb `info`."""

from __future__ import annotations

import os
from typing import Annotated

from openmofi import __version__
from openmofi.cli.app import Json, app
from openmofi.cli.output import print_json, print_table


@app.command
def info(*, as_json: Annotated[bool, Json] = False) -> None:
    """Print versions and the hardware of this machine.

    Example: openmofi info

    Args:
        as_json: Print JSON.
    """
    import importlib.metadata as metadata
    import platform

    packages = ("torch", "transformers", "numpy", "pyarrow", "faiss-cpu", "scikit-learn")
    rows = [("openmofi", __version__), ("python", platform.python_version())]
    rows += [(name, metadata.version(name)) for name in packages]
    rows += [("processor", f"{os.cpu_count()} x {platform.machine()}")]
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows.append(("GPU", ", ".join(gpus) or "none"))
    if as_json:
        print_json(dict(rows))
        return
    print_table(("", ""), rows)
