"""Turns lines of a Wikidata dump into EntityRecords, or states why a line gives none.

In: one entity's JSON as bytes. Out: an EntityRecord or a Refused. Only the needed fields are
decoded: msgspec skips the rest without making objects, at about 1 GB/s.

Traps in real dumps: an empty map is written []; old dumps have P31 without "id"; statements may be
deprecated or have no value; `mul` holds labels common to all languages; lines end in a comma.
Format: https://doc.wikimedia.org/Wikibase/master/php/docs_topics_json.html
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from operator import attrgetter
from typing import Any, Union

import msgspec

from openmofi.config import KBSettings
from openmofi.files.lines import TRAILING, Damage
from openmofi.files.tables import beginning
from openmofi.kb.read.presets import refusal_by_sites, refusal_by_types, wikipedias
from openmofi.kb.read.records import EntityRecord, LeftOutClass
from openmofi.kb.titles import plain_title
from openmofi.refused import Refused


class _Term(msgspec.Struct, gc=False):
    value: str = ""


class _ItemId(msgspec.Struct, gc=False):
    id: str = ""
    numeric_id: int = msgspec.field(default=0, name="numeric-id")


class _ItemValue(msgspec.Struct, gc=False):
    value: _ItemId | None = None


class _TextValue(msgspec.Struct, gc=False):
    value: str = ""


class _ItemSnak(msgspec.Struct, gc=False):
    datavalue: _ItemValue | None = None


class _TextSnak(msgspec.Struct, gc=False):
    datavalue: _TextValue | None = None


class _ItemStatement(msgspec.Struct, gc=False):
    mainsnak: _ItemSnak | None = None
    rank: str = "normal"


class _TextStatement(msgspec.Struct, gc=False):
    mainsnak: _TextSnak | None = None
    rank: str = "normal"


class _Site(msgspec.Struct, gc=False):
    title: str = ""


_BRACE = ord("{")
_SHOWN_BYTES = 4096
SEVERAL = "several_entities"
"""The reason for refusing a line with more than one entity."""
_ITEM_STATEMENT = msgspec.json.Decoder(_ItemStatement).decode
_TEXT_STATEMENT = msgspec.json.Decoder(_TextStatement).decode
_SITE = msgspec.json.Decoder(_Site).decode


@cache
def _terms_type(languages: tuple[str, ...], content: Any) -> Any:
    """Returns a struct with one field per wanted language; others are skipped without decoding."""
    names = [f"language_{i}" for i in range(len(languages))]
    return msgspec.defstruct(
        "Terms",
        [(name, content | None, None) for name in names],
        rename=dict(zip(names, languages, strict=True)),
        gc=False,
    )


@cache
def _decoder(languages: tuple[str, ...], *, with_claims: bool = True) -> msgspec.json.Decoder:
    one, many = _terms_type(languages, _Term), _terms_type(languages, list[_Term])
    empty = Union[list[Any], None]  # noqa: UP007 - the members are values here
    # Statements stay bytes: they are counted, and a few properties are decoded from them.
    statements = dict[str, list[msgspec.Raw]]
    claims = Union[statements, empty] if with_claims else msgspec.Raw  # noqa: UP007
    fields: list[tuple[str, Any, Any]] = [
        ("id", str, ""),
        ("type", str, ""),
        ("labels", Union[one, empty], None),  # noqa: UP007
        ("descriptions", Union[one, empty], None),  # noqa: UP007
        ("aliases", Union[many, empty], None),  # noqa: UP007
        ("claims", claims, None),
        ("sitelinks", Union[dict[str, msgspec.Raw], empty], None),  # noqa: UP007
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Item", fields, gc=False))


class LineDecoder:
    """Decodes lines of a dump under some settings."""

    def __init__(self, settings: KBSettings):
        self._languages = settings.languages
        self._preset = settings.preset
        self._sites = wikipedias(settings.languages)
        self._decode = _decoder(settings.languages).decode
        # The first field twice: for a single name, attrgetter would not return a tuple.
        names = [f"language_{i}" for i in range(len(settings.languages))]
        self._values = attrgetter(*names, names[0])

    def lines(
        self, data: bytes, first_line: int, damage: Damage | None = None
    ) -> Iterator[EntityRecord | Refused]:
        """Yields the record or refusal of every line; skips brackets and blank lines.

        Args:
            data: whole lines.
            first_line: number of the first line.
            damage: why the file breaks off after these lines; the last may then be incomplete.
        """
        view, start, number = memoryview(data), 0, first_line
        while (end := data.find(b"\n", start)) >= 0:
            # Nearly every line is {...}, which is decoded in place; other lines are copied.
            if data[start] == _BRACE and data[end - 2 : end] == b"},":
                yield self.item(view[start : end - 1], number)
            elif content := _content(data[start:end]):
                yield self.item(content, number)
            start, number = end + 1, number + 1
        if content := _content(data[start:]):
            found = self.item(content, number)
            is_whole = damage is None or damage.reason == TRAILING
            if is_whole or isinstance(found, EntityRecord):
                yield found
        if damage is not None:
            yield Refused(damage.reason, number, damage.message)

    def item(self, content: bytes | memoryview, number: int) -> EntityRecord | Refused:
        """Returns the record or refusal of one entity's JSON, in line `number`."""
        item = self._decoded(content)
        if isinstance(item, Refused) or not item.id:
            reason = item.reason if isinstance(item, Refused) else "no_id"
            return Refused(reason, number, beginning(bytes(content[:_SHOWN_BYTES])))
        if item.type == "property" or item.id.startswith("P"):
            return Refused("property_not_item", number)
        if item.type != "item" and (item.type or not item.id.startswith("Q")):
            return Refused("not_an_item", number)
        sites = item.sitelinks if isinstance(item.sitelinks, dict) else {}
        claims = item.claims if isinstance(item.claims, dict) else {}
        if reason := refusal_by_sites(sites, self._preset, self._sites):
            if "P279" in claims:  # a class
                label = next((t.value for _, t in self._by_language(item.labels) if t.value), "")
                return LeftOutClass(reason, number, id=item.id, label=label)
            return Refused(reason, number)
        types = _items(claims.get("P31"))
        if reason := refusal_by_types(types, self._preset):
            return Refused(reason, number)
        enwiki = _title(sites.get("enwiki"))
        if not (names := self._names(item, enwiki)):
            return Refused("no_name", number)
        images = _values(claims.get("P18"), _TEXT_STATEMENT)
        return EntityRecord(
            id=item.id,
            label=next(iter(names)),
            names=[(name, language, kind) for name, (language, kind) in names.items()],
            line=number,
            description=self._description(item),
            types=types,
            subclass_of=_items(claims.get("P279")),
            image=images[0] if images else "",
            enwiki=enwiki,
            sitelinks=len(sites),
            statements=sum(map(len, claims.values())),
            popularity=float(len(sites)),
        )

    def _decoded(self, content: bytes | memoryview) -> Any:
        """Returns the decoded item, or a Refused."""
        try:
            return self._decode(content)
        except msgspec.ValidationError:
            return self._decoded_leniently(content)
        except (msgspec.DecodeError, RecursionError) as error:
            # Does another object follow the one that was decoded?
            found = re.search(r"trailing characters \(byte (\d+)\)", str(error))
            at = int(found[1]) if found else len(content)
            is_object = re.match(rb"\s*,?\s*\{", bytes(content[at : at + _SHOWN_BYTES]))
            return Refused(SEVERAL if is_object else "bad_json")
        except UnicodeDecodeError:
            return Refused("not_utf8")

    def _decoded_leniently(self, content: bytes | memoryview) -> Any:
        """Keeps the names of an item whose statements have unexpected types."""
        try:
            item = _decoder(self._languages, with_claims=False).decode(content)
        except (msgspec.DecodeError, RecursionError):
            return Refused("bad_structure")
        except UnicodeDecodeError:
            return Refused("not_utf8")
        item.claims = None
        return item

    def _names(self, item: Any, enwiki: str) -> dict[str, tuple[str, str]]:
        """Returns each name with its language and kind, the label first."""
        # The first spelling wins; a label outranks an alias, whatever the language.
        labels = self._by_language(item.labels)
        names = {term.value: (language, "label") for language, term in labels if term.value}
        title = plain_title(enwiki)
        if title and "en" in self._languages:
            label = next((term.value for language, term in labels if language == "en"), "")
            # Wikipedia writes every title with a capital; the label shows whether the name has one.
            title = title[0].lower() + title[1:] if label[:1].islower() else title
            names.setdefault(title, ("en", "title"))
        for language, aliases in self._by_language(item.aliases):
            for alias in aliases:
                names.setdefault(alias.value, (language, "alias"))
        names.pop("", None)
        return names

    def _description(self, item: Any) -> str:
        return next((term.value for _, term in self._by_language(item.descriptions)), "")

    def _by_language(self, terms: Any) -> list[tuple[str, Any]]:
        if terms is None or type(terms) is list:
            return []
        pairs = zip(self._languages, self._values(terms), strict=False)
        return [pair for pair in pairs if pair[1]]


def _content(line: bytes) -> bytes:
    """Returns a line without its comma and without the brackets around the whole dump."""
    content = line.strip(b", \t\r\n")
    if content[:1] == b"[":
        content = content.lstrip(b"[").strip()
    if content[-1:] == b"]":
        content = content.rstrip(b"], \t")
    return content


def _title(site: msgspec.Raw | None) -> str:
    try:
        return _SITE(site).title if site else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _values(raw: list[msgspec.Raw] | None, decode: Callable[[msgspec.Raw], Any]) -> list[Any]:
    """Returns the values of the preferred statements or, if there are none, of the normal ones."""
    if not raw:
        return []
    normal, preferred = [], []
    for one in raw:
        try:
            statement = decode(one)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # of an unexpected form; the entity's other facts are kept
        if statement.rank == "deprecated":
            continue
        snak = statement.mainsnak
        value = snak.datavalue.value if snak and snak.datavalue else None
        (preferred if statement.rank == "preferred" else normal).append(value)
    return [value for value in preferred or normal if value]


def _items(raw: list[msgspec.Raw] | None) -> list[str]:
    if not raw:
        return []
    ids = [value.id or f"Q{value.numeric_id}" for value in _values(raw, _ITEM_STATEMENT)]
    return list(dict.fromkeys(ids))
