"""The route that names what an image shows, with the evidence."""

from __future__ import annotations

from asyncio import wrap_future
from typing import TYPE_CHECKING

import numpy as np
from fastapi import APIRouter

from openmofi.serve import replies
from openmofi.serve.library import Library
from openmofi.serve.refusal import Refusal, declared
from openmofi.serve.requests import TagQuestion, TagUpload
from openmofi.serve.served import Now
from openmofi.tag import Tag, Tagger
from openmofi.tag.tagger import Answer

if TYPE_CHECKING:
    from openmofi.model import MofiModel

router = APIRouter(tags=["search"])


@router.post("/api/tag", operation_id="tag", responses=declared(400, 404, 409, 503))
async def tag(question: TagQuestion, served: Now) -> replies.TagReply:
    """Names what an image shows, with the evidence; a calibrated model may abstain."""
    library, encoder = served.library, served.encoder
    if library.kb is None:
        raise Refusal(503, "no_names", "The server has no knowledge base; start it with --kb.")
    if isinstance(question, TagUpload):
        vector = served.uploads.get(question.upload).vector
    else:
        vector = library.index.vectors(np.array([library.check_row(question.row)]))[0]

    def answer(model: MofiModel) -> Answer:
        tagger = library.once(_tagger, model, served.model_folder)
        known, rate = tagger.stored_calibration(), question.error_rate
        if known is None and rate is not None:
            message = "The model's error rate is unknown; run `openmofi tag calibrate` first."
            raise Refusal(409, "not_calibrated", message)
        if known is not None and rate is None:
            rate = served.settings.error_rate
        return tagger.answer(vector[None], k=question.k, calibration=known, error_rate=rate)[0]

    found = await wrap_future(encoder.call(answer))
    tags = [_view(library, tag) for tag in found.tags]
    return replies.TagReply(tags=tags, abstains=found.abstains, reason=found.reason)


def _tagger(library: Library, model: MofiModel, folder: str) -> Tagger:
    assert library.kb is not None
    return Tagger(model, library.kb, index=library.index, head=folder)


def _view(library: Library, tag: Tag) -> replies.TagView:
    evidence = tag.evidence
    return replies.TagView(
        id=tag.id,
        label=tag.label or tag.id,
        description=tag.description,
        score=tag.score,
        probability=tag.probability,
        evidence=replies.EvidenceView(
            class_score=evidence.class_score,
            text_score=evidence.text_score,
            prior=evidence.prior,
            nearest=library.hits(evidence.nearest),
        ),
    )
