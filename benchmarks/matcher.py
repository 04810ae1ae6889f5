"""Finding names in captions: this matcher, a Python dict of n-grams, and Aho-Corasick automata.

    python benchmarks/matcher.py --names 5000000 --captions 200000
    python benchmarks/matcher.py --names 100000000 --no-rivals

Names of one to five words are drawn from a million made-up words; captions have eleven words, Zipf
distributed, and one name each. All rivals get captions in canonical form and must find the same
spans, leftmost and longest; a rival that is not installed is left out (ahocorasick_rs, daachorse,
pyahocorasick). Prints JSON: CPU time in one process and thread, medians over alternating rounds;
the index's bytes and opening time; how much a fresh process grows.
"""

import argparse
import gc
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.strings import string_buffers
from openmofi.config import LinkSettings
from openmofi.kb.index import NameIndex
from openmofi.kb.index_builder import IndexBuilder
from openmofi.kb.spelling import SMALL
from openmofi.kb.text import Tokens, tokenise
from openmofi.link.mentions import Mentions, find_mentions

NUM_WORDS = 1_000_000
SHUFFLE = 618_033  # coprime to a million: multiplying by it permutes the words
MAX_WORDS = 5
LENGTHS = [0.1, 0.5, 0.25, 0.1, 0.05]
CAPTION_WORDS = 11
SETTINGS = LinkSettings(max_words=MAX_WORDS, min_chars=1)
BATCH = 4096
HASHER = Hasher(0)
OURS = "openmofi"
NOT_STOPPED = np.zeros(0, np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=5_000_000)
    parser.add_argument("--captions", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rivals", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    words = make_words()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        began = time.process_time()
        names = build(words, options.names, index, keep=options.rivals)
        built = time.process_time() - began
        captions = make_captions(words, options.names, options.captions)
        print(json.dumps(measure(index, captions, names, built, options), indent=2))


def make_words() -> pa.StringArray:
    """Returns pronounceable made-up words, sorted."""
    syllables = np.array([c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"])
    numbers = np.arange(NUM_WORDS) + len(syllables) ** 2
    text = np.full(NUM_WORDS, "", dtype="U10")
    while numbers.any():
        text = np.where(numbers > 0, np.char.add(text, syllables[numbers % 90]), text)
        numbers //= 90
    return pa.array(np.sort(text).tolist())


def zipf(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns words by number; the order of words is alphabetical, so ranks are shuffled."""
    rank = (NUM_WORDS ** rng.random(size)).astype(np.int64) - 1
    return (rank * SHUFFLE) % NUM_WORDS


def first_share() -> np.ndarray:
    """Returns how many of all names begin with each word: common words begin more of them."""
    share = np.empty(NUM_WORDS)
    share[(np.arange(NUM_WORDS) * SHUFFLE) % NUM_WORDS] = 1 / (np.arange(NUM_WORDS) + 50)
    return share / share.sum()


FIRST_SHARE = first_share()


def names_of(words: pa.StringArray, num_names: int, chunk: int) -> pa.StringArray:
    """Returns the sorted names that begin with the words of one chunk of a hundredth."""
    rng = np.random.default_rng(chunk)
    here = np.arange(chunk, chunk + 1) * (NUM_WORDS // 100) + np.arange(NUM_WORDS // 100)
    first = np.repeat(here, rng.poisson(1.25 * num_names * FIRST_SHARE[here]))
    lengths = rng.choice(np.arange(1, MAX_WORDS + 1), len(first), p=LENGTHS)
    offsets = np.append(0, np.cumsum(lengths))
    tokens = zipf(rng, offsets[-1])
    tokens[offsets[:-1]] = first
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), words.take(pa.array(tokens)))
    unique = pc.unique(pc.binary_join(lists, " "))
    return unique.take(pc.sort_indices(unique))


def build(words: pa.StringArray, num_names: int, folder: Path, *, keep: bool) -> list[str]:
    builder = IndexBuilder(folder, HASHER, num_names=num_names)
    kept, row = [], 0
    for chunk in range(100):
        keys = names_of(words, num_names, chunk)
        entity = pa.array(np.arange(row, row + len(keys)), pa.int32())
        weight = pa.array(np.ones(len(keys)), pa.float32())
        small = pa.array(np.full(len(keys), SMALL, np.int8))
        builder.add(pa.table({"key": keys, "spelling": small, "entity": entity, "weight": weight}))
        row += len(keys)
        kept += keys.to_pylist() if keep else []
    builder.finish()
    return kept


def make_captions(words: pa.StringArray, num_names: int, count: int) -> pa.Array:
    """Returns captions with one name each, at a random place among other words."""
    rng = np.random.default_rng(1000)
    names = names_of(words, num_names, int(rng.integers(100)))
    chosen = names.take(pa.array(rng.integers(len(names), size=count)))
    before = rng.integers(0, CAPTION_WORDS - MAX_WORDS, count)
    after = CAPTION_WORDS - before - (pc.count_substring(chosen, " ").to_numpy() + 1)
    parts = [filler(words, rng, before), chosen, filler(words, rng, after)]
    return pc.utf8_trim(pc.binary_join_element_wise(*parts, " "), " ").cast(pa.large_string())


def filler(words: pa.StringArray, rng: np.random.Generator, counts: np.ndarray) -> pa.Array:
    offsets = np.append(0, np.cumsum(counts))
    tokens = words.take(pa.array(zipf(rng, offsets[-1])))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), tokens), " ")


# ---- the matchers: captions -> number of spans, and the spans of the first thousand -------------

Matcher = Callable[[pa.Array], list[list[tuple[int, int]]] | int]


def ours(index: NameIndex) -> Matcher:
    def match(captions: pa.Array) -> int:
        return sum(
            len(mentions_of(index, captions[at : at + BATCH]).row)
            for at in range(0, len(captions), BATCH)
        )

    return match


def ours_from_tokens(index: NameIndex, captions: pa.Array) -> Callable[[], int]:
    """Matching alone: the rivals, too, get their captions in canonical form."""
    batches = [tokenise(captions[at : at + BATCH]) for at in range(0, len(captions), BATCH)]
    raw = string_buffers(captions)[1]
    return lambda: sum(len(mentions_in(index, tokens, raw)) for tokens in batches)


def mentions_of(index: NameIndex, captions: pa.Array) -> Mentions:
    return mentions_in(index, tokenise(captions), string_buffers(captions)[1])


def mentions_in(index: NameIndex, tokens: Tokens, raw: np.ndarray) -> Mentions:
    return find_mentions(
        tokens, raw, index=index, hasher=HASHER, stopped=NOT_STOPPED, settings=SETTINGS
    )


def python_dict(names: list[str]) -> Callable[[list[str]], list[list[str]]]:
    known = dict.fromkeys(names, 0)

    def match(captions: list[str]) -> list[list[str]]:
        found = []
        for caption in captions:
            tokens, here, i = caption.split(" "), [], 0
            while i < len(tokens):
                for n in range(min(MAX_WORDS, len(tokens) - i), 0, -1):
                    name = " ".join(tokens[i : i + n])
                    if name in known:
                        here.append(name)
                        i += n - 1
                        break
                i += 1
            found.append(here)
        return found

    return match


def spaced(text: str) -> str:
    """Gives every word a space on either side, so that no match begins or ends within one."""
    return f" {text.replace(' ', '  ')} "


def automata(names: list[str]) -> dict[str, Callable[[], Callable[[str], list]]]:
    patterns = [spaced(name) for name in names]

    def rust() -> Callable[[str], list]:
        import ahocorasick_rs as ac

        kind = ac.MatchKind.LeftmostLongest
        automaton = ac.AhoCorasick(patterns, matchkind=kind, store_patterns=False)
        return automaton.find_matches_as_indexes

    def contiguous() -> Callable[[str], list]:
        import ahocorasick_rs as ac

        kind, form = ac.MatchKind.LeftmostLongest, ac.Implementation.ContiguousNFA
        automaton = ac.AhoCorasick(
            patterns, matchkind=kind, store_patterns=False, implementation=form
        )
        return automaton.find_matches_as_indexes

    def double_array() -> Callable[[str], list]:
        import daachorse

        kind = daachorse.MATCH_KIND_LEFTMOST_LONGEST
        automaton = daachorse.DoubleArrayAhoCorasick([p.encode() for p in patterns], kind)
        return lambda text: automaton.find(text.encode())

    def by_character() -> Callable[[str], list]:
        import daachorse

        kind = daachorse.MATCH_KIND_LEFTMOST_LONGEST
        return daachorse.CharwiseDoubleArrayAhoCorasick(patterns, kind).find

    def c() -> Callable[[str], list]:
        import ahocorasick

        automaton = ahocorasick.Automaton()
        for pattern in patterns:
            automaton.add_word(pattern, len(pattern))
        automaton.make_automaton()
        return lambda text: list(automaton.iter_long(text))

    return {
        "Aho-Corasick in Rust (ahocorasick_rs)": rust,
        "Aho-Corasick in Rust, contiguous (ahocorasick_rs)": contiguous,
        "double-array Aho-Corasick in Rust (daachorse)": double_array,
        "the same by character (daachorse)": by_character,
        "Aho-Corasick in C (pyahocorasick)": c,
    }


def measure(
    folder: Path, captions: pa.Array, names: list[str], built: float, options: argparse.Namespace
) -> dict:
    index = NameIndex.open(folder)
    match = ours(index)
    match(captions[:BATCH])  # compiles
    texts = captions.to_pylist()
    timed: dict[str, Callable[[], int]] = {
        OURS: ours_from_tokens(index, captions),
        "openmofi, canonical text included": lambda: match(captions),
    }
    built_in = {OURS: built}
    if names:
        by_dict = python_dict(names)
        timed["Python dict of n-grams"] = lambda: sum(map(len, by_dict(texts)))
        spaced_texts = [spaced(text) for text in texts]
        for name, make in automata(names).items():
            began = time.process_time()
            try:
                find = make()
            except ImportError:
                continue
            built_in[name] = time.process_time() - began
            timed[name] = lambda find=find: sum(len(find(text)) for text in spaced_texts)
    gc.freeze()
    seconds, spans = rounds(timed, options.rounds)
    rates = {name: options.captions / statistics.median(times) for name, times in seconds.items()}
    assert spans[OURS] == spans.get("Python dict of n-grams", spans[OURS])
    return {
        "names": len(index),
        "captions": options.captions,
        "mentions_per_caption": next(iter(spans.values())) / options.captions,
        "mentions_found": spans,
        "captions_per_second_and_core": {name: round(rate) for name, rate in rates.items()},
        "openmofi_is_faster_by": {
            name: round(rates[OURS] / rate, 2) for name, rate in rates.items()
        },
        "built_in_cpu_seconds": {name: round(value, 1) for name, value in built_in.items()},
        "index_mb": round(sum(f.stat().st_size for f in folder.iterdir()) / 1e6, 1),
        "opens_in_ms": opening(folder),
        "fresh_process": fresh_process(folder, captions),
    }


def rounds(timed: dict[str, Callable[[], int]], count: int) -> tuple[dict, dict]:
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    spans = {}
    for _ in range(count):
        for name, run in timed.items():
            began = time.process_time()
            spans[name] = run()
            seconds[name].append(time.process_time() - began)
    return seconds, spans


def opening(folder: Path) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        NameIndex.open(folder)
        times.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(times), 2)


def fresh_process(folder: Path, captions: pa.Array) -> dict[str, float]:
    """Returns what a worker's memory grows by when it opens the index and matches."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(grow, (folder, captions))


def grow(folder: Path, captions: pa.Array) -> dict[str, float]:
    tiny = pa.array(["a b"], pa.large_string())
    mentions_of_nothing(tiny)  # loads the compiled code
    before = memory()
    ours(NameIndex.open(folder))(captions)
    after = memory()
    return {name: round(after[name] - before[name], 1) for name in before}


def mentions_of_nothing(captions: pa.Array) -> None:
    with tempfile.TemporaryDirectory() as folder:
        empty = IndexBuilder(Path(folder) / "index", HASHER, num_names=1)
        empty.finish()
        mentions_of(NameIndex.open(Path(folder) / "index"), captions)


def memory() -> dict[str, float]:
    """Returns MB of this process alone, and of pages that processes share."""
    sums = {"private_mb": 0.0, "shared_mb": 0.0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        for kind in ("Private", "Shared"):
            if name.startswith(kind) and "Hugetlb" not in name:
                sums[f"{kind.lower()}_mb"] += int(rest.split()[0]) / 1000
    return sums


if __name__ == "__main__":
    main()
