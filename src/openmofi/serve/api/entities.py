"""Routes for entities: by the beginning of a name, and one entity with all its details."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Path, Query

from openmofi.serve import replies
from openmofi.serve.library import Library
from openmofi.serve.names import EntityNames
from openmofi.serve.neighbours import EntityMeans, confusions
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.requests import DEEPEST, EntityId
from openmofi.serve.served import Now

router = APIRouter(tags=["entities"])

_RELATIVES = 12
_NAMES = 20
"""Number of an entity's names that are looked up, those with the most weight."""
_CANDIDATES = 6


@router.get("/api/entities", operation_id="entities")
def entities(
    served: Now,
    q: Annotated[str, Query(max_length=200, description="The typed text.", examples=["fra"])] = "",
    k: Annotated[int, Query(ge=1, le=200, description="Most results.")] = 12,
    offset: Annotated[int, Query(ge=0, le=DEEPEST, description="Number to skip.")] = 0,
) -> replies.EntityList:
    """Finds entities by the beginning of a word in a name, or lists the most frequent ones."""
    library = served.library
    found = []
    for suggestion in library.once(EntityNames).find(q, k=k, offset=offset):
        label, description = library.texts(suggestion.entity)
        found.append(
            replies.NamedEntity(
                id=suggestion.entity,
                label=label,
                description=description,
                images=library.own[suggestion.entity]["images"],
                name=suggestion.name,
                thumbnail=library.face(suggestion.entity),
            )
        )
    return replies.EntityList(entities=found)


@router.get("/api/entities/{entity:path}", operation_id="entity", responses=declared(404))
def entity(
    entity: Annotated[EntityId, Path(description="Id of the entity.", examples=["Q142"])],
    served: Now,
) -> replies.EntityReply:
    """Returns the details of an entity, and the entities it may be mistaken for."""
    library = served.library
    own = library.own.get(entity)
    rank = library.kb.row_of(entity) if library.kb else None
    if own is None and rank is None:
        raise Refusal(404, "no_such_entity", "Neither the index nor its names have that entity.")
    names, types = _names_and_types(library, entity)
    label, description = library.texts(entity)
    siblings, confused = [], []
    if own:
        for other, cosine in library.once(EntityMeans).nearest(entity, k=_RELATIVES):
            siblings.append(replies.Sibling(**_counted(library, other), similarity=cosine))
        for other, share in confusions(library.index, entity, k=_RELATIVES):
            confused.append(replies.Confusion(**_counted(library, other), share=share))
    members = library.once(_members)
    others = {e for t in types for e in members.get(t, ())[: _RELATIVES + 1]} - {entity}
    order = sorted(others, key=lambda e: (-library.own[e]["images"], e))
    is_wikidata = re.fullmatch(r"Q[1-9][0-9]*", entity)
    return replies.EntityReply(
        id=entity,
        label=label,
        description=description,
        aliases=names,
        types=[replies.Entity(id=t, label=library.label(t)) for t in types],
        images=own["images"] if own else 0,
        popularity_rank=rank,
        wikidata=f"https://www.wikidata.org/wiki/{entity}" if is_wikidata else None,
        siblings=siblings,
        same_type=[replies.Relative(**_counted(library, e)) for e in order[:_RELATIVES]],
        confused=confused,
        names_shared=_shared(library, entity, names),
        thumbnail=library.face(entity),
    )


def _names_and_types(library: Library, entity: str) -> tuple[dict[str, list[str]], list[str]]:
    """Returns (names by language, ids of the types)."""
    own = library.own.get(entity)
    if own is None:
        assert library.kb is not None
        view = library.kb.show(entity)
        return view.names, view.types
    names: dict[str, list[str]] = defaultdict(list)
    for name in library.once(EntityNames).of(entity).to_pylist():
        if name["weight"] > 0 and name["raw"] not in names[name["language"]]:
            names[name["language"]].append(name["raw"])
    return dict(names), own["types"]


def _members(library: Library) -> dict[str, list[str]]:
    """Returns the entities of each type, those with most images first."""
    members: dict[str, list[str]] = defaultdict(list)
    for entity, known in library.own.items():
        for kind in known["types"]:
            members[kind].append(entity)
    return members


def _counted(library: Library, entity: str) -> dict[str, Any]:
    images = library.own[entity]["images"]
    known = {"id": entity, "label": library.label(entity), "images": images}
    return known | {"thumbnail": library.face(entity)}


def _shared(library: Library, entity: str, names: dict[str, list[str]]) -> list[replies.SharedName]:
    """Returns the entity's names that may also mean others, with these."""
    raw = list(dict.fromkeys(name for group in names.values() for name in group))[:_NAMES]
    if library.kb is None or not raw:
        return []
    found = library.kb.lookup(pa.array(raw), max_candidates=_CANDIDATES)
    candidates: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in found.to_pylist():
        candidates[row["row"]].append(row)
    shared: dict[tuple[str, ...], replies.SharedName] = {}
    for number, group in candidates.items():
        ids = tuple(candidate["id"] for candidate in group)
        if len(ids) > 1 and ids not in shared:  # "Turkey" and "TURKEY" have the same candidates
            named = [
                replies.NameCandidate(id=c["id"], label=library.label(c["id"]), prior=c["prior"])
                for c in group
            ]
            shared[ids] = replies.SharedName(name=raw[number], candidates=named)
    return list(shared.values())
