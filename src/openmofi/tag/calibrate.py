"""A tagger and labelled images -> each image's score, and whether the tag was right."""

from __future__ import annotations

from pathlib import Path

from openmofi.errors import InputError
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.vectors import ModelVectors
from openmofi.files.folders import cache_folder
from openmofi.tag.abstain import TagCalibration
from openmofi.tag.tagger import Tagger


def calibrate(tagger: Tagger, data: Path | str) -> TagCalibration:
    """Tags labelled images and compares the tags with the labels.

    Args:
        tagger: the tagger to calibrate.
        data: images that its model was not trained on, in a layout that `evaluate` knows; labels
            are entity ids.

    Raises:
        InputError: there are no labelled images, or none with an entity of the tagger.
    """
    images = open_labelled(data)
    if not {*images.labels} & {*tagger.ids}:
        raise InputError(
            f"No label of {str(data)!r} is one of the model's entities; labels must be entity ids, "
            f"such as {tagger.ids[0]!r}."
        )
    source = tagger.folder or tagger.model
    encoded = ModelVectors(source, device="auto", cache=cache_folder()).images(
        images.places, "calibrate"
    )
    labels = [images.labels[row] for row in encoded.rows.tolist()]
    return TagCalibration.measure(encoded.vectors, labels, tagger.vectors, tagger.ids)
