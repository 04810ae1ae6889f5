"""Tags -> an XMP sidecar with keywords that photo programs show, and their ids.

Labels are written as dc:subject; those with a Wikidata id also as IPTC's AboutCvTerm with the URI
of the entity. A separate list names our keywords, so that a later run can remove them.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

from openmofi.errors import InputError
from openmofi.files.folders import replace_file
from openmofi.tag.tagger import Tag

_NAMES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "openmofi": "urn:openmofi:xmp:1.0",
}
_WIKIDATA = re.compile(r"Q[1-9][0-9]*")
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'


def write_sidecar(path: Path, tags: Sequence[Tag]) -> None:
    """Writes tags into a sidecar; keeps what others wrote and removes what an earlier run wrote.

    Args:
        path: IMAGE.EXT.xmp; without tags it is not created.
        tags: the tags of the image.

    Raises:
        InputError: the existing file is not XMP.
    """
    if not tags and not path.is_file():
        return
    for prefix, uri in _NAMES.items():
        ET.register_namespace(prefix, uri)
    before, root, after = _HEAD, ET.Element(_name("x:xmpmeta")), "\n"
    if path.is_file():
        before, root, after = _read(path)
    rdf = root if root.tag == _name("rdf:RDF") else _below(root, "rdf:RDF")
    _below(rdf, "rdf:Description").attrib.setdefault(_name("rdf:about"), "")
    _take_back(rdf)
    others = _items(rdf, "dc:subject")
    labels = dict.fromkeys(_allowed(tag.label or tag.id) for tag in tags)
    own = [label for label in labels if label not in others]
    _add(rdf, "dc:subject", own)
    _add(rdf, "openmofi:subject", own)
    _add_terms(rdf, tags)
    ET.indent(root)
    text = before + ET.tostring(root, encoding="unicode") + after
    with replace_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _read(path: Path) -> tuple[str, ET.Element, str]:
    """Returns (text before the root, root, text after it)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        for _, (prefix, uri) in ET.iterparse(io.StringIO(text), events=["start-ns"]):
            if not re.fullmatch(r"ns\d+", prefix):  # reserved by the library
                ET.register_namespace(prefix, uri)
        keeping = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True, insert_pis=True))
        root = ET.fromstring(text, keeping)
    except (ET.ParseError, ValueError):
        text, root = "", None
    if root is None or root.tag not in (_name("x:xmpmeta"), _name("rdf:RDF")):
        raise InputError(f"{str(path)!r} is not XMP; move it away.")
    begin = re.search(r"<[A-Za-z]", text)
    assert begin is not None
    end = text.index(">", text.rindex("</")) + 1
    return text[: begin.start()], root, text[end:]


def _take_back(rdf: ET.Element) -> None:
    """Removes the keywords and terms of an earlier run."""
    ours = set(_items(rdf, "openmofi:subject"))
    uris = set(_items(rdf, "openmofi:term"))
    _remove(rdf, "dc:subject", lambda item: item.text in ours)
    term = f".//{_name('Iptc4xmpExt:CvTermId')}"
    _remove(rdf, "Iptc4xmpExt:AboutCvTerm", lambda item: item.findtext(term) in uris)
    for name in ("openmofi:subject", "openmofi:term"):
        _remove(rdf, name, lambda _: True)


def _remove(rdf: ET.Element, name: str, is_ours: Callable[[ET.Element], bool]) -> None:
    """Removes items of a property, and the property if it becomes empty."""
    for description in rdf.findall(_name("rdf:Description")):
        for found in description.findall(_name(name)):
            for items in found:
                for item in [item for item in items if is_ours(item)]:
                    items.remove(item)
            if not any(len(items) for items in found):
                description.remove(found)


def _add_terms(rdf: ET.Element, tags: Sequence[Tag]) -> None:
    known = [tag for tag in tags if _WIKIDATA.fullmatch(tag.id)]
    uris = [f"http://www.wikidata.org/entity/{tag.id}" for tag in known]
    for tag, uri in zip(known, uris, strict=True):
        resource = {_name("rdf:parseType"): "Resource"}
        items = _container(rdf, "Iptc4xmpExt:AboutCvTerm")
        item = ET.SubElement(items, _name("rdf:li"), resource)
        ET.SubElement(item, _name("Iptc4xmpExt:CvTermId")).text = uri
        name = _below(_below(item, "Iptc4xmpExt:CvTermName"), "rdf:Alt")
        language = {"{http://www.w3.org/XML/1998/namespace}lang": "x-default"}
        ET.SubElement(name, _name("rdf:li"), language).text = _allowed(tag.label or tag.id)
    _add(rdf, "openmofi:term", uris)


def _items(rdf: ET.Element, name: str) -> list[str]:
    place = f"{_name('rdf:Description')}/{_name(name)}/*/{_name('rdf:li')}"
    return [item.text or "" for item in rdf.findall(place)]


def _add(rdf: ET.Element, name: str, texts: list[str]) -> None:
    for text in texts:
        ET.SubElement(_container(rdf, name), _name("rdf:li")).text = text


def _container(rdf: ET.Element, name: str) -> ET.Element:
    """Returns the list of a property, or creates it."""
    known = rdf.find(f"{_name('rdf:Description')}/{_name(name)}/*")
    if known is not None:
        return known
    return _below(_below(_below(rdf, "rdf:Description"), name), "rdf:Bag")


def _below(element: ET.Element, name: str) -> ET.Element:
    """Returns the child with a name, or creates it."""
    found = element.find(_name(name))
    return ET.SubElement(element, _name(name)) if found is None else found


def _allowed(text: str) -> str:
    """Returns a text without characters that XML forbids."""
    return _FORBIDDEN.sub("", text)


def _name(short: str) -> str:
    prefix, local = short.split(":")
    return f"{{{_NAMES[prefix]}}}{local}"
