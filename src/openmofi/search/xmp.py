"""Tags -> an XMP sidecar: keywords that photo programs show, and their ids.

Labels are written as dc:subject; those with a Wikidata id also as IPTC's AboutCvTerm, whose term is
named by its URI. A list of our own says which keywords are ours, so that a later run can take them
back.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from openmofi.errors import InputError
from openmofi.search.tag import Tag

_NAMES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "openmofi": "urn:openmofi:xmp:1.0",
}
_WIKIDATA = re.compile(r"Q[1-9][0-9]*")


def write_sidecar(path: Path, tags: Sequence[Tag]) -> None:
    """Writes tags into a sidecar; keeps what others wrote, and takes back what we wrote before.

    Args:
        path: PICTURE.EXT.xmp; without tags none is made.
        tags: what the picture shows.

    Raises:
        InputError: there is a file that is no XMP.
    """
    if not tags and not path.is_file():
        return
    for prefix, uri in _NAMES.items():
        ET.register_namespace(prefix, uri)
    root = _read(path) if path.is_file() else ET.Element(_name("x:xmpmeta"))
    description = _below(_below(root, "rdf:RDF"), "rdf:Description")
    description.attrib.setdefault(_name("rdf:about"), "")
    _take_back(description)
    others = _items(description, "dc:subject")
    labels = list(dict.fromkeys(tag.label or tag.id for tag in tags))
    own = [label for label in labels if label not in others]
    _add(description, "dc:subject", own)
    _add(description, "openmofi:subject", own)
    _add_terms(description, tags)
    partial = path.with_name(f".{path.name}.partial")
    ET.indent(root)
    ET.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
    partial.replace(path)


def _read(path: Path) -> ET.Element:
    try:
        for _, (prefix, uri) in ET.iterparse(path, events=["start-ns"]):
            if not re.fullmatch(r"ns\d+", prefix):  # which the library keeps for itself
                ET.register_namespace(prefix, uri)
        root = ET.parse(path).getroot()
    except (ET.ParseError, ValueError):
        root = None
    if root is None or root.tag not in (_name("x:xmpmeta"), _name("rdf:RDF")):
        raise InputError(f"{str(path)!r} is no XMP; move it away.")
    return root


def _take_back(description: ET.Element) -> None:
    """Removes the keywords and terms of an earlier run."""
    ours = set(_items(description, "openmofi:subject"))
    uris = set(_items(description, "openmofi:term"))
    for bag in description.findall(f"{_name('dc:subject')}/*"):
        for item in [item for item in bag if item.text in ours]:
            bag.remove(item)
    for bag in description.findall(f"{_name('Iptc4xmpExt:AboutCvTerm')}/*"):
        ids = {item: item.findtext(f".//{_name('Iptc4xmpExt:CvTermId')}") for item in bag}
        for item in [item for item, uri in ids.items() if uri in uris]:
            bag.remove(item)
    for name in ("openmofi:subject", "openmofi:term"):
        for element in description.findall(_name(name)):
            description.remove(element)


def _add_terms(description: ET.Element, tags: Sequence[Tag]) -> None:
    known = [tag for tag in tags if _WIKIDATA.fullmatch(tag.id)]
    if not known:
        return
    bag = _below(_below(description, "Iptc4xmpExt:AboutCvTerm"), "rdf:Bag")
    uris = [f"http://www.wikidata.org/entity/{tag.id}" for tag in known]
    for tag, uri in zip(known, uris, strict=True):
        item = ET.SubElement(bag, _name("rdf:li"), {_name("rdf:parseType"): "Resource"})
        ET.SubElement(item, _name("Iptc4xmpExt:CvTermId")).text = uri
        name = _below(_below(item, "Iptc4xmpExt:CvTermName"), "rdf:Alt")
        language = {"{http://www.w3.org/XML/1998/namespace}lang": "x-default"}
        ET.SubElement(name, _name("rdf:li"), language).text = tag.label or tag.id
    _add(description, "openmofi:term", uris)


def _items(description: ET.Element, name: str) -> list[str]:
    return [item.text or "" for item in description.findall(f"{_name(name)}/*/{_name('rdf:li')}")]


def _add(description: ET.Element, name: str, texts: list[str]) -> None:
    if texts:
        bag = _below(_below(description, name), "rdf:Bag")
        for text in texts:
            ET.SubElement(bag, _name("rdf:li")).text = text


def _below(element: ET.Element, name: str) -> ET.Element:
    """Returns the child of a name, which is made if there is none."""
    found = element.find(_name(name))
    return ET.SubElement(element, _name(name)) if found is None else found


def _name(short: str) -> str:
    prefix, local = short.split(":")
    return f"{{{_NAMES[prefix]}}}{local}"
