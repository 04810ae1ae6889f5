"""Many images -> their tags, in a CSV or JSONL file or as XMP beside each image.

A file that is there already is continued: images it names are left out. A file of something else
is left as it is. XMP is changed in place: what other programs wrote stays, and keywords of an
earlier run make room for the new ones.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from openmofi.errors import InputError
from openmofi.files.folders import replace_file
from openmofi.files.hidden import is_hidden
from openmofi.images.formats import is_image, unread_reason
from openmofi.images.look import decode_bytes, fetch
from openmofi.progress import progress
from openmofi.refused import Refused
from openmofi.tag.tagger import Answer, Tagger
from openmofi.tag.xmp import write_sidecar

_BATCH = 64
_COLUMNS = ("image", "rank", "id", "label", "score", "probability", "abstains", "error")

_LINE = '{"image": '
"""How each line of our JSONL begins."""

Ask = Callable[[np.ndarray], list[Answer]]
"""Vectors of images -> what is said of each."""


@dataclass(frozen=True)
class Tagged:
    """An image and what is said of it."""

    image: Path
    answer: Answer | None
    error: str = ""
    """Why the image cannot be read: a reason, as in docs/formats.md."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Returns the images that are named, and all below the folders that are.

    Raises:
        InputError: there is none.
    """
    found = []
    for path in paths:
        found += _below(path) if path.is_dir() else [path]
    if not found:
        raise InputError(f"There is no image in {', '.join(repr(str(p)) for p in paths)}.")
    return found


def _below(folder: Path) -> list[Path]:
    """Returns the images below a folder that are not hidden."""
    named = (path for path in folder.rglob("*") if is_image(path.name) and path.is_file())
    return sorted(p for p in named if not is_hidden(p.relative_to(folder).as_posix()))


def tag_all(tagger: Tagger, images: Sequence[Path], ask: Ask) -> Iterator[Tagged]:
    """Yields what is said of each image, in their order; they are encoded together."""
    with progress("tag", total=len(images), unit="images") as bar:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            decoded = [_decode(tagger, path) for path in batch]
            good = [pixels for pixels in decoded if not isinstance(pixels, Refused)]
            answers = iter(ask(tagger.model.encode_pixels(np.stack(good))) if good else ())
            for path, pixels in zip(batch, decoded, strict=True):
                if isinstance(pixels, Refused):
                    yield Tagged(path, None, pixels.reason)
                else:
                    yield Tagged(path, next(answers))
            bar.advance(len(batch))


def write_tags(out: Path, tagger: Tagger, images: Sequence[Path], ask: Ask) -> Counter[str]:
    """Writes the tags of images to a .csv or .jsonl file, or continues it.

    Returns:
        How many images came to what now: tagged, abstained, or a reason.

    Raises:
        InputError: the file is of neither kind, or holds something else.
    """
    if out.suffix not in (".csv", ".jsonl"):
        raise InputError(f"--out {str(out)!r} is neither a .csv nor a .jsonl file.")
    done = _continue(out)
    todo = [path for path in images if str(path) not in done]
    write = _write_csv if out.suffix == ".csv" else _write_jsonl
    counts: Counter[str] = Counter()
    with _opened(out) as file:
        for item in tag_all(tagger, todo, ask):
            write(file, item)
            counts[_outcome(item)] += 1
    return counts


def write_sidecars(tagger: Tagger, images: Sequence[Path], ask: Ask) -> Counter[str]:
    """Writes the tags of each image to IMAGE.EXT.xmp; images nothing is said of get none.

    Returns:
        As `write_tags`.
    """
    counts: Counter[str] = Counter()
    for item in tag_all(tagger, images, ask):
        counts[_outcome(item)] += 1
        if item.answer is not None:
            write_sidecar(
                item.image.with_name(item.image.name + ".xmp"),
                [] if item.answer.abstains else item.answer.tags[:1],
            )
    return counts


def plain(item: Tagged) -> dict[str, Any]:
    """Returns what JSON says of an image."""
    if item.answer is None:
        return {"image": str(item.image), "error": item.error}
    return {"image": str(item.image), **asdict(item.answer)}


def _decode(tagger: Tagger, path: Path) -> np.ndarray | Refused:
    if reason := unread_reason(path.name):
        return Refused(reason)
    data = fetch(path.read_bytes)
    return data if isinstance(data, Refused) else decode_bytes(data, tagger.model.transform)


def _outcome(item: Tagged) -> str:
    if item.answer is None:
        return item.error
    return "abstained" if item.answer.abstains else "tagged"


def _continue(out: Path) -> set[str]:
    """Returns the images that a file names in whole; what may be torn is taken out of it.

    Raises:
        InputError: it holds something else, and is left as it is.
    """
    if not out.is_file():
        return set()
    text = out.read_bytes().decode(errors="surrogateescape")
    try:
        whole, done = _whole_lines(text) if out.suffix == ".jsonl" else _whole_rows(text)
    except (ValueError, KeyError, TypeError, csv.Error):
        raise InputError(f"{str(out)!r} holds something else; give --out a new file.") from None
    if whole != text:
        with replace_file(out) as partial:
            partial.write_bytes(whole.encode(errors="surrogateescape"))
    return done


def _whole_lines(text: str) -> tuple[str, set[str]]:
    """Returns (the whole lines of JSONL, the images that they name)."""
    *lines, torn = text.split("\n")  # not splitlines: a caption may hold its other separators
    if torn and not _LINE.startswith(torn[: len(_LINE)]):
        raise ValueError("not ours")
    return "".join(f"{line}\n" for line in lines), {json.loads(line)["image"] for line in lines}


def _whole_rows(text: str) -> tuple[str, set[str]]:
    """Returns (the rows of CSV of all images but the last, those images)."""
    head = _csv([_COLUMNS])
    if not text.startswith(head):
        if head.startswith(text):  # the head itself is torn
            return "", set()
        raise ValueError("not ours")
    whole = text[: text.rfind("\r\n") + 2]
    rows = [row for row in csv.reader(io.StringIO(whole, newline="")) if len(row) == len(_COLUMNS)]
    kept = [row for row in rows[1:] if row[0] != rows[-1][0]]
    return head + _csv(kept), {row[0] for row in kept}


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue()


@contextmanager
def _opened(out: Path) -> Iterator[TextIO]:
    out.parent.mkdir(parents=True, exist_ok=True)
    is_new = not out.is_file() or not out.stat().st_size
    with out.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        if is_new and out.suffix == ".csv":
            csv.writer(file).writerow(_COLUMNS)
        yield file


def _write_jsonl(file: TextIO, item: Tagged) -> None:
    file.write(json.dumps(plain(item), ensure_ascii=False) + "\n")


def _write_csv(file: TextIO, item: Tagged) -> None:
    csv.writer(file).writerows(_csv_rows(item))


def _csv_rows(item: Tagged) -> Iterable[tuple[Any, ...]]:
    """Yields a row per tag; one row for an image that cannot be read."""
    if item.answer is None:
        yield str(item.image), "", "", "", "", "", "", item.error
        return
    for rank, tag in enumerate(item.answer.tags):
        sure = "" if tag.probability is None else f"{tag.probability:.4f}"
        abstains = str(item.answer.abstains).lower()
        yield str(item.image), rank, tag.id, tag.label, f"{tag.score:.4f}", sure, abstains, ""
