"""Small dumps in the exact form of Wikidata's."""

import gzip
import json
from pathlib import Path
from typing import Any


def item(number: int, label: str | None = None, *, sites: int = 1, **fields: Any) -> dict:
    """An item with a label and some sitelinks; the first is English Wikipedia's."""
    label = label or f"thing {number}"
    codes = ["en", *(f"x{i}" for i in range(1, sites))][:sites]
    return {
        "type": "item",
        "id": f"Q{number}",
        "labels": {"en": {"language": "en", "value": label}},
        "sitelinks": {f"{code}wiki": {"title": label} for code in codes},
        **fields,
    }


def of_class(*numbers: int, rank: str = "normal") -> list[dict]:
    """Statements of P31 or P279."""
    values = ({"datavalue": {"value": {"id": f"Q{n}"}}} for n in numbers)
    return [{"mainsnak": value, "type": "statement", "rank": rank} for value in values]


def write_dump(path: Path, *items: dict) -> Path:
    lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
    text = f"[\n{lines}\n]\n".encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def content(kb: Path) -> dict[str, bytes]:
    """All files of a knowledge base but the card, which holds times."""
    files = (path for path in sorted(kb.rglob("*")) if path.is_file())
    return {str(f.relative_to(kb)): f.read_bytes() for f in files if f.name != "card.json"}
