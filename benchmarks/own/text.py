"""Text and names: rows of own_code.py."""

from __future__ import annotations

import contextlib
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
from own.rivals import Finding, brings, ratios, rival

_TEMPLATES = (
    "Flag of {} flying in São Paulo, Brazil",
    "a postcard from {} - Dvořák's house, 1904",
    "{} & friends at the U.S. Open",
    "the old town of {}, seen from the river",
)


def _captions(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    syllables = [c + v for c in "BDFGKLMNPRST" for v in "aeiouéü"]
    names = ["".join(rng.choice(syllables, 3)).title() for _ in range(1000)]
    return [_TEMPLATES[i % 4].format(names[i * 7 % 1000]) for i in range(count)]


def matcher(folder: Path) -> Iterator[Finding]:
    import matcher as rows

    words = rows.make_words()
    names = rows.build(words, 100_000, folder / "index", keep=True)
    captions = rows.make_captions(words, 100_000, 4000)
    texts = captions.to_pylist()
    index = rows.NameIndex.open(folder / "index")
    ours = rows.ours_from_tokens(index, captions)
    rivals: dict[str, tuple[str, Callable[[], int]]] = {}
    spaced = [rows.spaced(text) for text in texts]
    for name, make in rows.automata(names).items():
        package = name.split("(")[-1].rstrip(")")
        if not name.endswith("contiguous (ahocorasick_rs)") and not name.startswith("the same"):
            with contextlib.suppress(ImportError):
                find = make()
                rivals[name] = package, lambda f=find: sum(len(f(text)) for text in spaced)
    if flashtext := rival("flashtext"):
        processor = flashtext.KeywordProcessor(case_sensitive=True)
        processor.add_keywords_from_list(names)
        rivals["flashtext"] = (
            "flashtext",
            lambda: sum(len(processor.extract_keywords(text)) for text in texts),
        )
    if spacy := rival("spacy"):
        language = spacy.blank("en")
        phrases = rival("spacy.matcher").PhraseMatcher(language.vocab)
        phrases.add("NAME", list(language.tokenizer.pipe(names)))
        filtered = rival("spacy.util").filter_spans
        rivals["spaCy's PhraseMatcher"] = (
            "spacy",
            lambda: sum(
                len(filtered(phrases(doc, as_spans=True))) for doc in language.tokenizer.pipe(texts)
            ),
        )
    timed, wanted = ratios(ours, {name: run for name, (_, run) in rivals.items()}, 3), ours()
    for name, (package, run) in rivals.items():
        note = f"{run():,} names found, ours {wanted:,} {brings(package)}"
        yield Finding(f"{name}, 100,000 names", timed[name], note)
    whole = ratios(ours, {"r": lambda: rows.ours(index)(captions)}, 3)["r"]
    yield Finding("ours, with the canonical text", whole, "the rivals get canonical captions")


def canonical(folder: Path) -> Iterator[Finding]:
    from tokenizers import normalizers, pre_tokenizers

    from openmofi.kb.text import canonical_batch, tokenise

    texts = _captions(20_000)
    word = re.compile(r"\w+")

    def in_python() -> list[list[str]]:
        folded = (unicodedata.normalize("NFKD", text.casefold()) for text in texts)
        bare = ("".join(c for c in t if not unicodedata.combining(c)) for t in folded)
        return [word.findall(text) for text in bare]

    bert, split = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()

    def in_rust() -> list[list[str]]:
        return [[w for w, _ in split.pre_tokenize_str(bert.normalize_str(text))] for text in texts]

    rivals = {"unicodedata and re": in_python, "tokenizers' BERT": in_rust}
    array = pa.array(texts)

    def in_arrow() -> pa.Array:
        lower = pa.compute.utf8_lower(pa.compute.utf8_normalize(array, "NFKD"))
        return pa.compute.utf8_split_whitespace(lower)

    rivals["pyarrow.compute"] = in_arrow
    if spacy := rival("spacy"):
        tokenizer = spacy.blank("en").tokenizer
        rivals["spacy's tokenizer"] = lambda: [
            [token.lower_ for token in doc] for doc in tokenizer.pipe(texts)
        ]
    shown = "AT&T in the U.S.A.: Dvořák's"
    folded = unicodedata.normalize("NFKD", shown.casefold())
    bare = "".join(c for c in folded if not unicodedata.combining(c))
    theirs = {
        "unicodedata and re": word.findall(bare),
        "tokenizers' BERT": [w for w, _ in split.pre_tokenize_str(bert.normalize_str(shown))],
    }
    mine = canonical_batch([shown])[0].as_py()
    for name, ratio in ratios(lambda: tokenise(texts), rivals, 3).items():
        note = "keeps accents and signs"
        if name in theirs:
            note = f"«{shown}»: «{' '.join(theirs[name])}», ours «{mine}»"
        yield Finding(name, ratio, f"{note}; ours tells places and case, too")


def ngram_hashes(folder: Path) -> Iterator[Finding]:
    from openmofi.arrays.hashing import Hasher
    from openmofi.kb.text import tokenise

    tokens, hasher = tokenise(_captions(5000)), Hasher(0)
    first = np.arange(len(tokens))
    last = first[:, None] + np.arange(5)
    fits = last < tokens.row_start[tokens.row + 1][:, None]
    start, end = np.repeat(tokens.start, fits.sum(1)), tokens.end[last[fits]]
    hasher.spans(tokens.buffer, start, end)  # makes the table of powers

    def ours() -> np.ndarray:
        return hasher.spans(tokens.buffer, start, end)

    text = tokens.buffer.tobytes()
    spans = list(zip(start.tolist(), end.tolist(), strict=True))
    rivals = {"hash() of slices": lambda: [hash(text[a:b]) for a, b in spans]}
    if xxhash := rival("xxhash"):
        digest = xxhash.xxh3_64_intdigest
        rivals["xxhash of slices"] = lambda: [digest(text[a:b]) for a, b in spans]
    notes = {"hash() of slices": "another value in every process"}
    for name, ratio in ratios(ours, rivals).items():
        yield Finding(f"{name}, {len(spans):,} n-grams", ratio, notes.get(name, ""))


def html_entities(folder: Path) -> Iterator[Finding]:
    from openmofi.arrays.strings import string_buffers
    from openmofi.kb.entities import expand_entities

    def ours(texts: list[str]) -> Callable[[], Any]:
        offsets, data = string_buffers(pa.array(texts, pa.large_string()))
        return lambda: expand_entities(data, offsets)

    plain = [text.replace("&", "and") for text in _captions(20_000)]
    few = [
        text.replace(" and ", " &amp; ") if i % 20 == 2 else text for i, text in enumerate(plain)
    ]
    every = [f"{text} caf&eacute; &#39;n&#39;" for text in plain]
    for share, texts in (("none", plain), ("one caption in 20", few), ("each, three", every)):
        found = ratios(ours(texts), {"r": lambda t=texts: [html.unescape(text) for text in t]})
        yield Finding(f"html.unescape; {share} with entities", found["r"], "ours tells places, too")
    for text in ("shop?a=1&copy=2", "&amp;eacute;"):
        found = ours([text])()
        mine = found.data.tobytes().decode() if found else text
        note = f"of `{text}` it makes `{html.unescape(text)}`, ours `{mine}`"
        yield Finding("html.unescape", None, note)


def strings(folder: Path) -> Iterator[Finding]:
    from openmofi.arrays.strings import open_strings, write_strings

    batches = [
        pa.array([f"Q{i} thing number {i}" for i in range(at, at + 16_384)], pa.large_string())
        for at in range(0, 16_384 * 64, 16_384)
    ]
    write_strings(folder / "ours", batches)
    schema = pa.schema([("s", pa.large_string())])

    def write(path: Path, parts: list[pa.Array]) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in parts:
                writer.write_batch(pa.record_batch([part], schema=schema))

    write(folder / "batches.arrow", batches)
    write(folder / "one.arrow", [pa.concat_arrays(batches)])

    def arrow(name: str) -> pa.ChunkedArray:
        return pa.ipc.open_file(pa.memory_map(str(folder / name))).read_all()["s"]

    rng = np.random.default_rng(0)
    rows = rng.integers(0, 16_384 * 64, 5000)
    wanted, single = pa.array(rows), rows.tolist()
    mapped = {"ours": open_strings(folder / "ours"), "one batch": arrow("one.arrow")}
    mapped["64 batches"] = arrow("batches.arrow")
    jobs = {
        "opening": lambda n: {
            "ours": lambda: [open_strings(folder / "ours") for _ in range(100)],
            "one batch": lambda: [arrow("one.arrow") for _ in range(100)],
            "64 batches": lambda: [arrow("batches.arrow") for _ in range(100)],
        }[n](),
        "5,000 rows at once": lambda n: mapped[n].take(wanted),
        "5,000 rows one by one": lambda n: [mapped[n][i].as_py() for i in single],
    }
    for what, job in jobs.items():
        names = ("one batch", "64 batches")
        found = ratios(lambda j=job: j("ours"), {n: lambda j=job, n=n: j(n) for n in names})
        for name, ratio in found.items():
            note = "written only by who holds all in memory" if name == "one batch" else ""
            yield Finding(f"Arrow IPC, mapped, {name}; {what}", ratio, note)
