"""`diff` told again, pair by pair, in plain Python: the changes and causes of two selections."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq

EXCHANGED = ["input", "knowledge_base", "encoder", "priors", "weights", "threshold"]
STEP_OF_REASON = {
    "text_in_picture": "text_in_picture",
    "type_denied": "type_denied",
    "picture_disagrees": "picture_disagrees",
    "duplicate_exact": "duplicate",
    "duplicate_near": "duplicate",
    "entity_too_rare": "entity_too_rare",
    "entity_has_enough": "entity_has_enough",
}
CAUSE_OF_STEP = {
    "text_in_picture": "text_area",
    "type_denied": "denied_type",
    "too_many_entities": "max_entities",
    "duplicate": "duplicate",
    "entity_too_rare": "min_images",
    "entity_has_enough": "cap",
}


class Told:
    """A selection as plain Python."""

    def __init__(self, folder: Path, denied: set[str], texts: dict[str, str]):
        i2e = folder.parents[1]
        self.run = json.loads((i2e / "run.json").read_text())
        self.card = json.loads((folder / "card.json").read_text())
        self.denied, self.texts = denied, texts
        ids = pq.read_table(folder / "vocabulary.parquet")["id"].to_pylist()
        self.vocabulary = set(ids)
        self.labels, self.reason, self.rows = {}, {}, {}
        for row in pq.read_table(folder / "keep.parquet").to_pylist():
            scores = zip(row["classes"], row["scores"], strict=True)
            self.labels[row["key"]] = {ids[c]: score for c, score in scores}
        for row in pq.read_table(folder / "refused.parquet").to_pylist():
            self.reason[row["key"]] = row["reason"]
        for file in pq.read_table(folder / "shards.parquet")["file"].to_pylist():
            self.rows |= {row["key"]: row for row in pq.read_table(i2e / file).to_pylist()}
        settings = self.card["settings"]
        self.rule = {
            "order": settings["order"],
            "weights": self.card["weights"],
            "threshold": self.card["threshold"],
            "taught": {},
        }
        if (folder / "priors.parquet").is_file():
            for row in pq.read_table(folder / "priors.parquet").to_pylist():
                self.rule["taught"][row["name"], row["id"]] = row["after"]


def mentions_of(candidates):
    found = {}
    for candidate in candidates:
        found.setdefault(candidate["start"], []).append(candidate)
    return found


def taught(rule, mention):
    """The texts of a mention with the priors that images taught; context weighs log priors 1."""
    if not rule["taught"]:
        return [c["text_score"] for c in mention]
    after = [rule["taught"].get((c["surface"].lower(), c["id"]), c["prior"]) for c in mention]
    after = [p / sum(after) for p in after]
    nil = max(1 - sum(c["text_score"] for c in mention), 1e-6)
    highest = max(after), max(c["prior"] for c in mention)
    odds = [
        c["text_score"] / nil * ((new / highest[0]) / (c["prior"] / highest[1])) ** rule["power"]
        for c, new in zip(mention, after, strict=True)
    ]
    return [odd / (1 + sum(odds)) for odd in odds]


def chosen_of(mention, rule):
    """The id that a mention chooses, its score, and whether it reaches the threshold."""
    by_prior = rule["order"] == "caption-match"
    text = [c["prior"] for c in mention] if by_prior else taught(rule, mention)
    best = max(range(len(mention)), key=lambda i: text[i])
    score, evidence = text[best], mention[best]["clip_z"]
    if rule["order"] == "joint" and evidence is not None:
        w = rule["weights"]
        logit = [
            w["text"] * math.log(max(t, 1e-6)) + w["clip_z"] * (c["clip_z"] - w["nil_z"])
            for t, c in zip(text, mention, strict=True)
        ]
        best = max(range(len(mention)), key=lambda i: logit[i])
        others = 1 + sum(math.exp(x) for i, x in enumerate(logit) if i != best)
        evidence = logit[best] - math.log(others)
        score = 1 / (1 + math.exp(-evidence))
    threshold = rule["threshold"]
    # The threshold is the evidence of one of the labels, here but for rounding.
    passes = threshold is None or (evidence is not None and evidence >= threshold - 1e-6)
    return mention[best]["id"], score, passes


def step_of(told, key, entity):
    """The step at which a selection loses a label that it does not have."""
    row, rule = told.rows.get(key), told.rule
    if row is None:
        return "absent"
    if row["error"]:
        return "damaged"
    if all(c["id"] != entity for c in row["entities"]):
        return "not_a_candidate"
    chosen = [chosen_of(m, rule) for m in mentions_of(row["entities"]).values()]
    mine = [passes for id_, _, passes in chosen if id_ == entity]
    reason = STEP_OF_REASON.get(told.reason.get(key, ""))
    if not mine:
        return "not_chosen"
    if reason == "text_in_picture":
        return reason
    if entity in told.denied:
        return "type_denied"
    if not any(mine):
        return "picture_disagrees"
    best = {}
    for id_, score, passes in chosen:
        if passes and id_ not in told.denied:
            best[id_] = max(score, best.get(id_, 0))
    order = sorted(best, key=lambda id_: (-best[id_], id_))
    if order.index(entity) >= told.card["settings"]["max_entities"]:
        return "too_many_entities"
    if reason == "duplicate":
        return reason
    return "entity_has_enough" if entity in told.vocabulary else "entity_too_rare"


def exchanges(old, new, one, other):
    """At which exchange the candidates with their texts change, and at which clip_z; and whether
    there are other candidates."""
    kb = one.run["kb"] != other.run["kb"]
    model = one.run["model_sha256"] != other.run["model_sha256"]
    reader = one.run["settings"] != other.run["settings"]
    priors = one.run.get("priors_sha256") != other.run.get("priors_sha256")
    first = {(c["start"], c["id"]): c for c in old}
    second = {(c["start"], c["id"]): c for c in new}
    shared = first.keys() & second.keys()

    def unlike(name, default=None):
        def value(c):
            return c.get(name, c.get(default))

        return any(value(first[at]) != value(second[at]) for at in shared)

    retold = any(one.texts[id_] != other.texts[id_] for _, id_ in shared)
    others = first.keys() != second.keys()
    by_text = by_z = None
    if others or unlike("kb_prior", "prior"):
        by_text = "knowledge_base" if kb else "priors" if priors else "encoder"
    elif unlike("prior"):
        by_text = "priors" if priors else "knowledge_base" if kb else "encoder"
    elif unlike("text_score"):
        by_text = "knowledge_base" if kb and (retold or not reader) else "encoder"
    if unlike("clip"):
        by_z = "knowledge_base" if kb and (retold or not model) else "encoder"
    elif unlike("clip_z"):
        moved = one.run["input"] != other.run["input"]
        by_z = "knowledge_base" if kb else "input" if moved else "encoder"
    return by_text, by_z, others


def scored_cause(one, other, key, entity, lost):
    old, new = one.rows[key]["entities"], other.rows[key]["entities"]
    by_text, by_z, others = exchanges(old, new, one, other)
    first = {(c["start"], c["id"]): c for c in old}
    second = {(c["start"], c["id"]): c for c in new}
    state, cause, done = lost, "threshold", set()
    same_order = one.rule["order"] == other.rule["order"]
    for exchanged in EXCHANGED:
        done.add(exchanged)
        texts, zs = (second if by_text in done else first), by_z in done
        owner = second if others and by_text in done else first
        candidates = []
        for at, c in owner.items():
            told = texts.get(at, c)
            z_from = (second if zs else first).get(at, c)
            candidates.append(
                {**c, "text_score": told["text_score"], "prior": told["prior"]}
                | {"clip_z": z_from["clip_z"]}
            )
        rule = dict(one.rule)
        if "priors" in done:
            rule["taught"] = other.rule["taught"]
        if "weights" in done:
            rule |= {name: other.rule[name] for name in ("order", "weights")}
        if ("threshold" if same_order else "weights") in done:
            rule["threshold"] = other.rule["threshold"]
        if rule["order"] == "joint" and rule["weights"] is None:
            rule["weights"] = one.rule["weights"] or other.rule["weights"]
        chosen = [chosen_of(m, rule) for m in mentions_of(candidates).values()]
        there = any(id_ == entity and passes for id_, _, passes in chosen)
        if there != state:
            cause = exchanged
        state = there
    return cause


def cause_of(one, other, key, entity, step, lost):
    if step in ("absent", "damaged"):
        return "input"
    old, new = one.rows[key], other.rows[key]
    known = old["sha256"] is not None and new["sha256"] is not None
    if old["caption"] != new["caption"] or (known and old["sha256"] != new["sha256"]):
        return "input"
    if step in ("not_a_candidate", "not_chosen", "picture_disagrees"):
        return scored_cause(one, other, key, entity, lost)
    if step == "type_denied":
        settings = [told.card["settings"]["deny_types"] for told in (one, other)]
        if settings[0] == settings[1] and one.run["kb"] != other.run["kb"]:
            return "knowledge_base"
    return CAUSE_OF_STEP[step]


def slow_diff(one, other):
    """Returns {(key, kind, id before, id after): (cause, reason)}."""
    found = {}
    for key in one.labels.keys() | other.labels.keys():
        old, new = one.labels.get(key, {}), other.labels.get(key, {})
        lost = {e: step_of(other, key, e) for e in old if e not in new}
        gained = {e: step_of(one, key, e) for e in new if e not in old}
        switched = _switched(one, other, key, lost, gained)
        for entity, step in lost.items():
            kind = "changed" if entity in switched else "lost"
            cause = cause_of(one, other, key, entity, step, True)
            found[key, kind, entity, switched.get(entity)] = cause, step
        for entity, step in gained.items():
            if entity not in switched.values():
                cause = cause_of(one, other, key, entity, step, False)
                found[key, "gained", None, entity] = cause, step
    return found


def _switched(one, other, key, lost, gained):
    """Returns {entity before: entity after} where a mention chose otherwise."""
    if not lost or not gained or one.rows[key]["caption"] != other.rows[key]["caption"]:
        return {}
    unchosen = ("not_a_candidate", "not_chosen")
    free = [{e for e, step in side.items() if step in unchosen} for side in (lost, gained)]
    chosen = [
        {
            start: chosen_of(m, told.rule)[0]
            for start, m in mentions_of(told.rows[key]["entities"]).items()
        }
        for told in (one, other)
    ]
    pairs = [(chosen[0][s], chosen[1][s]) for s in sorted(chosen[0].keys() & chosen[1].keys())]
    pairs = [(e, f) for e, f in pairs if e in free[0] and f in free[1]]
    for at in (0, 1):
        seen, once = set(), []
        for pair in pairs:
            if pair[at] not in seen:
                seen.add(pair[at])
                once.append(pair)
        pairs = once
    return dict(pairs)
