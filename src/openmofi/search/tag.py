"""Tagging: pictures -> the entities they show, with the evidence for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openmofi.errors import InputError, SettingsError
from openmofi.kb import KnowledgeBase
from openmofi.model import MofiModel, load_model
from openmofi.model.class_rows import FOLDER, load_head_rows
from openmofi.model.transform import Picture
from openmofi.pairs import PICTURE_ERRORS
from openmofi.search.query import reason_of


@dataclass(frozen=True)
class Tag:
    """One entity that a picture may show."""

    id: str
    label: str
    description: str
    score: float
    """Cosine with the entity's class row, or with its text if the model was not trained on it."""
    evidence: str
    """class row | text."""


class Tagger:
    """Class rows and entity texts of a model and a knowledge base, ready to compare with."""

    def __init__(self, model: MofiModel | str | Path, kb: Path | str | KnowledgeBase):
        self.kb = kb if isinstance(kb, KnowledgeBase) else KnowledgeBase.open(Path(kb))
        self.model = load_model(model) if isinstance(model, (str, Path)) else model
        head = Path(model) / FOLDER if isinstance(model, (str, Path)) else None
        if head is not None and head.is_dir():
            rows, self.ids = load_head_rows(head)
            self._vectors, self._evidence = rows.numpy(), "class row"
        else:
            self.ids = self.kb.ids.to_pylist()
            texts = self.kb.entity_text(list(range(len(self.ids))))
            self._vectors, self._evidence = self.model.encode_texts(texts), "text"
        known = {self.kb.row_of(entity) for entity in self.ids}
        if known == {None}:
            raise InputError("The model's entities are not in this knowledge base; pass another.")

    def tag(self, pictures: Sequence[Picture], *, k: int = 5) -> list[list[Tag]]:
        """Returns the k likeliest entities of each picture, best first.

        Raises:
            InputError: a picture cannot be read.
        """
        if k < 1:
            raise SettingsError(f"k, the number of entities, cannot be {k}; expected at least 1.")
        vectors = np.concatenate([self._encode(picture) for picture in pictures])
        similarity = vectors @ self._vectors.T
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return [
            [self._tag(int(entity), float(similarity[i, entity])) for entity in row]
            for i, row in enumerate(best)
        ]

    def tag_readable(
        self, paths: Sequence[Path], *, k: int = 5
    ) -> tuple[dict[Path, list[Tag]], list[str]]:
        """Returns (the entities of each picture that can be read, why the others cannot)."""
        tags, unreadable = {}, []
        for path in paths:
            try:
                tags[path] = self.tag([path], k=k)[0]
            except InputError as error:
                unreadable.append(str(error))
        return tags, unreadable

    def _encode(self, picture: Picture) -> np.ndarray:
        try:
            return self.model.encode_images([picture])
        except PICTURE_ERRORS as error:
            name = repr(str(picture)) if isinstance(picture, (str, Path)) else "given"
            raise InputError(f"Cannot read the picture {name}: {reason_of(error)}.") from None

    def _tag(self, entity: int, score: float) -> Tag:
        row = self.kb.row_of(self.ids[entity])
        label = description = ""
        if row is not None:
            label = self.kb.texts.label[row].as_py()
            description = self.kb.texts.description[row].as_py()
        return Tag(self.ids[entity], label, description, score, self._evidence)


def tag(
    model: MofiModel | str | Path, images: Sequence[Picture], *, kb: Path | str, k: int = 5
) -> list[list[Tag]]:
    """Names what pictures show.

    Args:
        model: a run's model directory (its class rows are used), or any dual encoder (entity
            texts are).
        images: paths, bytes, arrays or PIL images.
        kb: knowledge base with the entities' names.
        k: entities per picture.
    """
    return Tagger(model, kb).tag(images, k=k)
