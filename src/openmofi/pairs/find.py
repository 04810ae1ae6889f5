"""A path or URL -> the shards of the input; no pair is read yet.

Files with many rows are cut into parts, so that a job loses, repeats and distributes small pieces:
listings and folders by 1,000 rows, Parquet and Arrow files by whole row groups of 10,000 rows.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from openmofi.errors import InputError
from openmofi.files.hidden import is_hidden
from openmofi.files.remote import FoundFile, Remote, Root, open_root
from openmofi.images.formats import is_image
from openmofi.pairs.formats import ACCEPTED, FORMATS, kind_of
from openmofi.shards import Shard


@dataclass(frozen=True)
class Input:
    """What was found at a path: the root of relative names, and the shards."""

    root: Root
    """A local folder or a URL; ImageReader also takes it as `str(root)`."""
    shards: tuple[Shard, ...]


def find_shards(path: Path | str | Remote) -> Input:
    """Finds the shards at a path or URL, sorted by name, without reading pairs.

    Raises:
        InputError: there is nothing, or nothing that can be read as pairs.
    """
    place = open_root(path)
    found = place.find() if isinstance(place, Remote) else _local_files(place)
    if [file.path for file in found] == [""]:  # the path is one file
        file, place = replace(found[0], path=place.name), place.parent
        kind = kind_of(file.path)
        chosen = [_shard(file, kind)] if kind else []
    else:
        chosen = _choose(place, found)
    if not chosen:
        raise InputError(f"{str(path)!r} holds no image-caption pairs; pass {ACCEPTED}.")
    shards = _distinct(chosen)
    if isinstance(place, Path):  # each part of a remote file would transfer it whole
        shards = _distinct([part for shard in shards for part in cut_shard(place, shard)])
    return Input(place, shards)


def _local_files(path: Path) -> list[FoundFile]:
    if not path.exists():
        raise InputError(f"There is no input {str(path)!r}; pass {ACCEPTED}.")
    if path.is_file():
        return [_found(path, "")]
    names = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not is_hidden(name)]
        shown = [name for name in files if not is_hidden(name)]
        names += [os.path.relpath(os.path.join(folder, name), path) for name in shown]
    names.sort(key=lambda name: name.split(os.sep))
    return [FoundFile(name.replace(os.sep, "/"), 0, 0) for name in names]


def _found(path: Path, name: str) -> FoundFile:
    stat = path.stat()
    return FoundFile(name, stat.st_size if path.is_file() else 0, stat.st_mtime_ns)


def _choose(root: Root, found: list[FoundFile]) -> list[Shard]:
    """Returns the shards of the first format that a folder contains."""
    for kind, form in FORMATS.items():
        if form.find:
            files = form.find(root, found)
        else:
            named = (file for file in found if file.path.endswith(form.suffixes))
            files = [file for file in named if not _is_ours(file, found)]
        if kind == "parquet" and (folders := _folders_beside(root, found, files)):
            return [_shard(folder, "folder") for folder in folders]
        if files:
            # The size and time of a local file are not known yet; those of a vanished one never.
            paths = [None if isinstance(root, Remote) else root / file.path for file in files]
            return [
                _shard(_found(path, file.path) if path and path.exists() else file, kind)
                for file, path in zip(files, paths, strict=True)
            ]
    return []


def _is_ours(file: FoundFile, found: list[FoundFile]) -> bool:
    """Returns whether a file is the vocabulary of a dataset that `openmofi export` wrote."""
    path = PurePosixPath(file.path)
    card = str(path.with_name("card.json"))
    return path.name == "vocabulary.parquet" and any(f.path == card for f in found)


def _folders_beside(root: Root, found: list[FoundFile], tables: list[FoundFile]) -> list[FoundFile]:
    """Returns the folders of img2dataset's format `files`: 00000/ next to 00000.parquet."""
    stems = {file.path.removesuffix(".parquet"): file for file in tables}
    with_images = {file.path.rpartition("/")[0] for file in found if is_image(file.path)}
    if isinstance(root, Remote) or not tables or not stems.keys() <= with_images:
        return []
    return [_found(root / stem, stem) for stem in stems]


def _shard(file: FoundFile, kind: str) -> Shard:
    path = PurePosixPath(file.path)
    # The name of a commit must not be hidden, even if the user names a hidden file.
    name = "__".join(path.with_suffix("").parts).lstrip(".") if path.name else "folder"
    return Shard(name or "shard", file.path, kind, file.size, file.mtime_ns)


def cut_shard(root: Path, shard: Shard) -> Iterator[Shard]:
    """Yields the parts of a shard, or the shard itself if it is small."""
    stops = FORMATS[shard.kind].stops(root / shard.path)
    if not stops:
        yield shard
        return
    for number, (start, stop) in enumerate(zip([0, *stops], [*stops, None], strict=True)):
        yield replace(shard, name=f"{shard.name}-{number:05d}", start=start, stop=stop)


def _distinct(shards: list[Shard] | tuple[Shard, ...]) -> tuple[Shard, ...]:
    """Renames shards with the same name, such as those of a/b.tar and a__b.tar."""
    count, renamed = Counter(shard.name for shard in shards), []
    for shard in shards:
        if count[shard.name] > 1:
            place = f"{shard.path}:{shard.start}" if shard.start else shard.path
            digest = hashlib.sha256(place.encode()).hexdigest()[:8]
            shard = replace(shard, name=f"{shard.name}-{digest}")
        renamed.append(shard)
    return tuple(renamed)
