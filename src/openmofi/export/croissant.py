"""Croissant metadata, version 1.0: the croissant.json of an export.

It is JSON-LD that describes a dataset to search engines and loaders; the context is that of the
specification, https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmofi.export.audits import audit_sentence

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_TEXT, _INTEGER, _IMAGE = "sc:Text", "sc:Integer", "sc:ImageObject"
_FIELDS = {
    "key": (_TEXT, "Number of the image."),
    "caption": (_TEXT, "The text that came with the image."),
    "url": (_TEXT, "Where the image came from; may be empty."),
    "source_shard": (_TEXT, "Shard of the input that contains the image."),
    "source_key": (_TEXT, "Key of the image in its shard."),
    "width": (_INTEGER, "Pixels."),
    "height": (_INTEGER, "Pixels."),
    "sha256": (_TEXT, "Hash of the encoded image, in hex."),
}
_MEDIA_TYPES = {".tar": "application/x-tar", ".parquet": "application/x-parquet"}


@dataclass(frozen=True)
class Description:
    """What a dataset's cards say about it."""

    name: str
    license: str
    url: str
    card: dict[str, Any]
    """card.json of the selection, with its audits."""

    @property
    def audits(self) -> list[str]:
        """A sentence for each audit."""
        return [audit_sentence(audit) for audit in self.card.get("audits", [])]

    @property
    def sentence(self) -> str:
        """A description of the dataset with its size."""
        funnel = self.card["funnel"]
        return (
            f"{funnel['kept_images']:,} images with {funnel['kept_labels']:,} labels of "
            f"{funnel['entities']:,} entities, selected from {funnel['pairs']:,} pairs of images "
            "and captions."
        )


def write_croissant(folder: Path, files: list[Path], about: Description) -> None:
    """Writes croissant.json.

    Args:
        folder: folder of the dataset.
        files: its tars and Parquet files, inside the folder; without tars, the images are in the
            column image.
        about: name, licence and so on.
    """
    objects = []
    for path in files:
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described = {
            "@type": "cr:FileObject",
            "@id": name,
            "name": path.name,
            "contentUrl": name,
            "contentSize": f"{path.stat().st_size} B",
            "encodingFormat": _MEDIA_TYPES[path.suffix],
            "sha256": digest,
        }
        objects.append(described)
    tars = [path.name for path in files if path.suffix == ".tar"]
    sets, records = _of_tars(tars) if tars else _of_parquet()
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.name,
        "description": " ".join([about.sentence, *about.audits]),
        "license": about.license,
        "url": about.url,
        "version": "1.0.0",
        "distribution": [*objects, *sets],
        "recordSet": records,
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    (folder / "croissant.json").write_text(text + "\n", encoding="utf-8")


def _file_set(name: str, media_type: str, includes: str | list[str], **more: Any) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "encodingFormat": media_type,
        "includes": includes,
        **more,
    }


def _field(record: str, name: str, kind: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record}/{name}",
        "name": name,
        "description": text,
        "dataType": kind,
        **more,
    }


def _record_set(name: str, text: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": text,
        "field": fields,
    }


def _column(files: str, name: str, **more: Any) -> dict[str, Any]:
    return {"source": {"fileSet": {"@id": files}, "extract": {"column": name}, **more}}


def _columns(record: str, files: str) -> list[dict[str, Any]]:
    """Returns the fields that describe each image (samples.ABOUT)."""
    fields = [
        _field(record, name, kind, text, **_column(files, name))
        for name, (kind, text) in _FIELDS.items()
    ]
    for name in ("id", "label"):
        text = f"The {name} of each entity that the image shows, best first."
        inner = _column(files, "entities", transform={"jsonPath": f"$.{name}"})
        fields.append(_field(record, f"entity_{name}", _TEXT, text, repeated=True, **inner))
    return fields


def _of_tars(tars: list[str]) -> tuple[list[dict], list[dict]]:
    """Returns the file sets and record sets of tars, one each for images and descriptions."""
    inside = {"containedIn": [{"@id": tar} for tar in tars]}
    images = ["*.jpg", "*.png", "*.webp", "*.gif", "*.bmp", "*.tif"]
    sets = [
        _file_set("pictures-files", "image/jpeg", images, **inside),
        _file_set("descriptions-files", _MEDIA_TYPES[".parquet"], "[0-9]*.parquet"),
    ]

    def of_file(what: str) -> dict[str, Any]:
        return {"source": {"fileSet": {"@id": "pictures-files"}, "extract": {"fileProperty": what}}}

    shown = [
        _field("pictures", "filename", _TEXT, "Its key and extension.", **of_file("filename")),
        _field("pictures", "image", _IMAGE, "The image.", **of_file("content")),
    ]
    described = _columns("descriptions", "descriptions-files")
    return sets, [
        _record_set("pictures", "The images themselves.", shown),
        _record_set("descriptions", "The description of each image, by its key.", described),
    ]


def _of_parquet() -> tuple[list[dict], list[dict]]:
    """Returns the file set and the record set of Parquet files with images."""
    sets = [_file_set("parquet-files", _MEDIA_TYPES[".parquet"], "data/*.parquet")]
    image = _column("parquet-files", "image", transform={"jsonPath": "$.bytes"})
    fields = [_field("default", "image", _IMAGE, "The image, encoded.", **image)]
    fields += _columns("default", "parquet-files")
    return sets, [_record_set("default", "One record per image.", fields)]
