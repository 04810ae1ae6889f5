"""The whole of `select` once more, slowly and independently: rows as dictionaries, one at a time.

By the text (`labelled.BY_TEXT`): the threshold is given and applies to clip_z.
"""

from collections import Counter

import pyarrow as pa

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.random_keys import Purpose, mix_integers


def slow_selection(rows, settings, denied=(), excluded=()):
    """Returns ({key: ids, best first} of the kept, {key: reason} of the others, {key: copy of}).

    Args:
        rows: as of `labelled.pair`, all with bytes and an area of text.
        settings: `config.SelectSettings`.
        denied: ids of entities.
        excluded: (sha256, phash or None) of images, with names.
    """
    reasons, repeats, labels, by_key = {}, {}, {}, {row["key"]: row for row in rows}
    for row in rows:
        key = row["key"]
        labels[key] = [(c["id"], c["text_score"], c["clip_z"]) for c in _chosen(row["entities"])]
        reasons[key] = row["error"] or ("" if labels[key] else "no_mention")
        if not reasons[key] and row["text_area"] > (settings.max_text_area or 1):
            reasons[key] = "text_in_picture"
        if not reasons[key] and _is_excluded(row, excluded, settings.duplicate_bits):
            reasons[key] = "evaluation_duplicate"
    _filter(labels, reasons, "type_denied", lambda label: label[0] not in denied)
    _filter(labels, reasons, "picture_disagrees", lambda label: label[2] >= settings.threshold)
    for key, found in labels.items():
        best = {}
        for entity, score, _ in sorted(found, key=lambda label: (-label[1], label[0])):
            best.setdefault(entity, score)
        labels[key] = list(best.items())[: settings.max_entities]
    if settings.duplicates != "keep":
        bits = settings.duplicate_bits if settings.duplicates == "near" else None
        _refuse_copies(by_key, labels, reasons, repeats, bits)
    counts = Counter(entity for found in labels.values() for entity, _ in found)
    keep = {entity for entity, count in counts.items() if count >= settings.min_images}
    _filter(labels, reasons, "entity_too_rare", lambda label: label[0] in keep)
    if settings.max_images is not None:
        for entity in keep:
            mine = [key for key, found in labels.items() if entity in dict(found)]
            mine.sort(key=lambda k: (mix_integers(0, Purpose.CAP, _word(by_key[k])), _tie(k)))
            for key in mine[settings.max_images :]:
                labels[key] = [label for label in labels[key] if label[0] != entity]
                if not labels[key]:
                    reasons[key] = "entity_has_enough"
    kept = {key: [entity for entity, _ in labels[key]] for key in labels if not reasons[key]}
    return kept, {key: reason for key, reason in reasons.items() if reason}, repeats


def _chosen(candidates):
    """The candidate with the largest text_score of each mention, in their order."""
    mentions = {}
    for candidate in candidates:
        mentions.setdefault(candidate["start"], []).append(candidate)
    return [max(mention, key=lambda c: c["text_score"]) for mention in mentions.values()]


def _filter(labels, reasons, reason, is_good):
    for key, found in labels.items():
        labels[key] = [label for label in found if not reasons[key] and is_good(label)]
        if found and not labels[key] and not reasons[key]:
            reasons[key] = reason


def _is_excluded(row, excluded, bits):
    return any(
        row["sha256"] == sha256
        or (None not in (phash, row["phash"]) and (phash ^ row["phash"]).bit_count() <= bits)
        for sha256, phash in excluded
    )


def _refuse_copies(by_key, labels, reasons, repeats, bits):
    def surest_first():
        mine = [key for key in labels if not reasons[key]]
        return sorted(mine, key=lambda k: (-labels[k][0][1], _word(by_key[k]), _tie(k)))

    def refuse(key, of, reason):
        reasons[key], labels[key], repeats[key] = reason, [], of

    first = {}
    for key in surest_first():
        digest = by_key[key]["sha256"]
        if digest and first.setdefault(digest, key) != key:
            refuse(key, first[digest], "duplicate_exact")
    if bits is None:
        return
    kept = []
    for key in surest_first():
        phash, entity = by_key[key]["phash"], labels[key][0][0]
        if phash is None:
            continue
        near = [
            other
            for other, its_phash, its_entity in kept
            if its_entity == entity and (phash ^ its_phash).bit_count() <= bits
        ]
        if near:
            refuse(key, near[0], "duplicate_near")
        else:
            kept.append((key, phash, entity))
    for key, of in repeats.items():
        repeats[key] = repeats.get(of, of)


def _word(row):
    return int.from_bytes(row["sha256"][:8], "little")


def _tie(key):
    """A hash of the key, which decides between pairs that are equal in all else."""
    return int(Hasher(0).strings(pa.array([key]))[0])
