"""What the verbs print: JSON, tables, counts, and the next command."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

_MOST_SHARDS = 10


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON knows neither NaN nor infinity
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:
    """Prints dataclasses, paths and plain data as JSON; NaN becomes null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_table(
    heads: tuple[str, ...], rows: Sequence[tuple[Any, ...]], styles: Sequence[str] = ()
) -> None:
    """Prints rows below their heads, fitted to the terminal; `styles` colours them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=any(heads))
    for head in heads:
        table.add_column(head, overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*(Text(str(cell)) for cell in row), style=styles[i] if styles else None)
    # In a pipe, each row stays on one line for grep and cut.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def brief(value: Any, most: int = 600) -> str:
    """Returns a value as text, truncated if it is long."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= most else text[:most].rstrip() + " …"


def say_wrote(out: Path, rows: int, dropped: dict[str, int], unit: str) -> None:
    """Prints what was written, and what was dropped for which reasons."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items())
    lost = f"; dropped {sum(dropped.values()):,}: {reasons}" if dropped else ""
    print(f"wrote {out} ({rows:,} {unit}{lost})")


def quoted(value: str | Path) -> str:
    """Quotes a path or a text for the shell, as one word that is not a flag."""
    text = str(value)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def say_next(command: str) -> None:
    """Prints the command to type next; paths in it must be `quoted`."""
    print(f"next: {command}")


def say_troubled(out: Path, troubled: Sequence[tuple[str, str, str]]) -> None:
    """Prints the first shards that failed or ended early, given as (shard, status, reason)."""
    for shard, how, reason in troubled[:_MOST_SHARDS]:
        print(f"shard {shard} {'failed' if how == 'failed' else 'ended early'}: {reason}")
    if len(troubled) > _MOST_SHARDS:
        print(f"and {len(troubled) - _MOST_SHARDS:,} more shards; see {out}/_done")
