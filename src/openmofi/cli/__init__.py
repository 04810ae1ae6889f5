"""The command line: every verb parses, calls the function of its name, and says what it did."""

from openmofi.cli import (
    adapting,
    evaluating,
    labels,
    linking,
    links,
    models,
    names,
    reinforcing,
    searching,
    selections,
    serving,
    tagging,
    use,
)
from openmofi.cli.app import app, main

__all__ = [
    "adapting",
    "app",
    "evaluating",
    "labels",
    "linking",
    "links",
    "main",
    "models",
    "names",
    "reinforcing",
    "searching",
    "selections",
    "serving",
    "tagging",
    "use",
]
