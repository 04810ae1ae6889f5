"""The route for searching and browsing."""

from __future__ import annotations

import time
from asyncio import gather, wrap_future
from dataclasses import replace

import numpy as np
from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from openmofi.search import Term
from openmofi.serve import replies
from openmofi.serve.facets import count_facets
from openmofi.serve.library import Library
from openmofi.serve.refusal import declared
from openmofi.serve.requests import AnyTerm, EntityTerm, RowTerm, SearchQuestion, TextTerm
from openmofi.serve.served import Now, Served

router = APIRouter(tags=["search"])


@router.post("/api/search", operation_id="search", responses=declared(400, 404, 503))
async def search(question: SearchQuestion, served: Now) -> replies.SearchReply:
    """Finds the images nearest to a weighted mix of terms; without terms, browses the index.

    For one text, upload or entity it says whether the index holds that, once `openmofi index
    calibrate` has run. An entity that no image is labelled with is searched by its text.
    """
    begin, library = time.perf_counter(), served.library
    asked = {term.text for term in question.terms if isinstance(term, TextTerm)}
    entities = {term.entity for term in question.terms if isinstance(term, EntityTerm)}
    absent = [await run_in_threadpool(library.text_of_absent, name) for name in entities]
    texts = [*asked.union(text for text in absent if text is not None)]
    encoded = [wrap_future(served.encoder.text(text)) for text in texts]
    vectors = dict(zip(texts, await gather(*encoded), strict=True))
    found = await run_in_threadpool(_found, served, library, question, vectors)
    found.seconds = time.perf_counter() - begin
    return found


def _found(
    served: Served, library: Library, question: SearchQuestion, texts: dict[str, np.ndarray]
) -> replies.SearchReply:
    """Searches, given the vectors of the question's texts."""
    understood = [_understood(served, library, term, texts) for term in question.terms]
    conditions = question.filter.conditions()
    vector, terms = None, [term for term, _ in understood if term.weight]
    if terms:  # only the ratios of their weights matter
        largest = max(abs(term.weight) for term in terms)
        terms = [replace(term, weight=term.weight / largest) for term in terms]
        vector = library.searcher.vector(terms)
    found = library.searcher.search(
        terms,
        filter=conditions,
        k=question.k,
        offset=question.offset,
        min_score=question.min_score,
        absent_rate=question.absent_rate,
    )
    return replies.SearchReply(
        found=found.presence.found,
        p_value=found.presence.p_value,
        presence=found.presence.sentence,
        hits=library.hits(found.hits),
        total=found.total,
        plan=found.plan,
        facets=count_facets(library, vector, conditions, question.min_score, found.passing)
        if question.facets
        else None,
        terms=[view for _, view in understood],
        seconds=0.0,
    )


def _understood(
    served: Served, library: Library, term: AnyTerm, texts: dict[str, np.ndarray]
) -> tuple[Term, replies.TermView]:
    """Returns (the term for the index, the term as the client sees it)."""
    weight = term.weight
    if isinstance(term, TextTerm):
        view = replies.TermView(kind="text", label=term.text, weight=weight)
        return Term("vector", texts[term.text], weight, of="text"), view
    if isinstance(term, RowTerm):
        hit = library.hit(term.row)
        label = hit.entities[0].label if hit.entities else hit.caption
        view = replies.TermView(kind="row", label=label, weight=weight, thumbnail=hit.thumbnail)
        return Term("row", term.row, weight), view
    if isinstance(term, EntityTerm):
        text = library.text_of_absent(term.entity)
        entity = library.resolve(term.entity)
        view = replies.TermView(kind="entity", label=library.label(entity), weight=weight)
        if text is not None:
            return Term("vector", texts[text], weight, of="text"), view
        return Term("entity", entity, weight), view
    upload = served.uploads.get(term.upload)
    thumbnail = f"/api/uploads/{upload.id}/thumbnail"
    view = replies.TermView(kind="upload", label="image", weight=weight, thumbnail=thumbnail)
    return Term("vector", upload.vector, weight, of="image"), view
