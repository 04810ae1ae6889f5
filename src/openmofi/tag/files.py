"""Many images -> their tags, in a CSV or JSONL file or as an XMP sidecar of each image.

An existing file is continued: images that it names are skipped. A file with other content is left
unchanged. XMP is changed in place: what other programs wrote stays, and the keywords of an earlier
run are replaced by the new ones.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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
"""The beginning of each line of our JSONL."""

Ask = Callable[[np.ndarray], list[Answer]]
"""Vectors of images -> the answer for each."""


@dataclass(frozen=True)
class Tagged:
    """An image and the answer for it."""

    image: Path
    answer: Answer | None
    error: str = ""
    """Reason for which the image cannot be read, as in docs/formats.md."""


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Returns the given images, and all visible ones below the given folders.

    Raises:
        InputError: there are no images.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if is_image(p.name) and p.is_file())
            found += sorted(p for p in inside if not is_hidden(p.relative_to(path).as_posix()))
        else:
            found.append(path)
    if not found:
        raise InputError(f"There is no image in {', '.join(repr(str(p)) for p in paths)}.")
    return found


def tag_all(tagger: Tagger, images: Sequence[Path], ask: Ask) -> Iterator[Tagged]:
    """Yields the answer for each image, in order; images are encoded in batches."""
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
        The number of new images by outcome: tagged, abstained, or a reason.

    Raises:
        InputError: the file is of neither kind, or has other content.
    """
    if out.suffix not in (".csv", ".jsonl"):
        raise InputError(f"--out {str(out)!r} is neither a .csv nor a .jsonl file.")
    done = _continue(out)
    todo = [path for path in images if str(path) not in done]
    write = _write_csv if out.suffix == ".csv" else _write_jsonl
    counts: Counter[str] = Counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    is_new = not out.is_file() or not out.stat().st_size
    with out.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        if is_new and out.suffix == ".csv":
            csv.writer(file).writerow(_COLUMNS)
        for item in tag_all(tagger, todo, ask):
            write(file, item)
            counts[_outcome(item)] += 1
    return counts


def write_sidecars(tagger: Tagger, images: Sequence[Path], ask: Ask) -> Counter[str]:
    """Writes the best tag of each image to IMAGE.EXT.xmp; an image without one gets no sidecar.

    Returns:
        The number of images by outcome, as `write_tags`.
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
    """Returns the answer for an image as plain data for JSON."""
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
    """Returns the images that a file contains completely; removes what may be incomplete.

    Raises:
        InputError: it has other content; it is left unchanged.
    """
    if not out.is_file():
        return set()
    text = out.read_bytes().decode(errors="surrogateescape")
    try:
        whole, done = _whole_lines(text) if out.suffix == ".jsonl" else _whole_rows(text)
    except (ValueError, KeyError, TypeError, csv.Error):
        raise InputError(f"{str(out)!r} has other content; give --out a new file.") from None
    if whole != text:
        with replace_file(out) as partial:
            partial.write_bytes(whole.encode(errors="surrogateescape"))
    return done


def _whole_lines(text: str) -> tuple[str, set[str]]:
    """Returns (the complete lines of JSONL, the images that they name)."""
    *lines, torn = text.split("\n")  # not splitlines, whose other separators a label may contain
    if torn and not _LINE.startswith(torn[: len(_LINE)]):
        raise ValueError("not ours")
    return "".join(f"{line}\n" for line in lines), {json.loads(line)["image"] for line in lines}


def _whole_rows(text: str) -> tuple[str, set[str]]:
    """Returns (the CSV rows of all images but the last, those images)."""
    head = _csv([_COLUMNS])
    if not text.startswith(head):
        if head.startswith(text):  # the header itself is incomplete
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


def _write_jsonl(file: TextIO, item: Tagged) -> None:
    file.write(json.dumps(plain(item), ensure_ascii=False) + "\n")


def _write_csv(file: TextIO, item: Tagged) -> None:
    """Writes a row per tag, or one row for an image that cannot be read."""
    image, writer = str(item.image), csv.writer(file)
    if item.answer is None:
        writer.writerow((image, "", "", "", "", "", "", item.error))
        return
    abstains = str(item.answer.abstains).lower()
    for rank, tag in enumerate(item.answer.tags):
        sure = "" if tag.probability is None else f"{tag.probability:.4f}"
        writer.writerow((image, rank, tag.id, tag.label, f"{tag.score:.4f}", sure, abstains, ""))
