"""Are names found in captions of many languages and scripts? With Tux Paint's translated stamps.

    apt install tuxpaint-stamps-default
    python benchmarks/many_languages.py [STAMPS] [--languages de,ja] [--examples 5]

Each stamp has a caption in English ("A red apple.") and in up to 77 other languages. Stamps of
equal English captions, large and small letters alike, are one entity; letters of alphabets are left
out. Two tests, each with a knowledge base of one language's names:

    own      The names are the captions of up to six English words, without full stop and article;
             each caption is linked, and is right if its first link is its stamp. Names and texts
             are the same, so only reading is tested: scripts, words without spaces, stop words,
             marks. Of two stamps that the language calls by one name, one cannot be right: shared.
    longer   The names are the captions of one English word (apple), the texts all longer captions;
             those are unseen. Wanted are the names that the linker finds in the English caption. A
             translation may use another word, so that 100% cannot be reached; it may also inflect
             the name, or write it into a longer word, and then it is not found.

An article is what begins 5% of a language's captions and is followed by a space. Names are also
given in small letters, as docs/linking.md advises: captions write the first word with a capital.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openmofi.config import KBSettings, LinkSettings
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.text import canonical_batch
from openmofi.link import Linker

STAMPS = Path("/usr/share/tuxpaint/stamps")
LETTERS = "symbols/alphabets"
LANGUAGES = "en,de,nl,fr,es,it,vi,id,tr,fi,hu,cs,ru,el,ka,hy,ar,he,hi,am,ko,ja,th,km,zh_CN,zh_TW"
ARTICLE_SHARE = 0.05
MAX_WORDS = 6
MARKS = " .!?。！？।|…"
Captions = dict[str, dict[str, str]]
"""English caption in small letters -> language -> caption."""


@dataclass
class Found:
    """What was found of what is right."""

    wanted: int = 0
    right: int = 0
    shared: int = 0
    """Not right, as another stamp has the same name."""
    nothing: int = 0
    """Not right, as no name was found at all."""
    others: int = 0
    """Links that are not wanted."""
    missed: list[str] = field(default_factory=list)

    def figures(self, num_examples: int) -> dict[str, Any]:
        """Returns the counts, and some of what was missed."""
        step = max(len(self.missed) // max(num_examples, 1), 1)
        share = round(self.right / self.wanted, 3) if self.wanted else None
        return {**vars(self), "share": share, "missed": self.missed[::step][:num_examples]}


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stamps", type=Path, nargs="?", default=STAMPS)
    parser.add_argument("--languages", default=LANGUAGES)
    parser.add_argument("--min-chars", type=int, default=LinkSettings().min_chars)
    parser.add_argument("--examples", type=int, default=3, help="captions to show per failure")
    arguments = parser.parse_args()
    stamps = read_stamps(arguments.stamps)
    truth = names_in_english(stamps)
    settings, shown = LinkSettings(min_chars=arguments.min_chars), arguments.examples
    result = {}
    for language in arguments.languages.split(","):
        own = own_captions(stamps, language, settings)
        longer = longer_captions(stamps, language, truth, settings)
        result[language] = {"own": own.figures(shown), "longer": longer.figures(shown)}
    print(json.dumps(result, indent=2, ensure_ascii=False))


# ---- stamps -------------------------------------------------------------------------------------


def read_stamps(folder: Path) -> Captions:
    """Returns the captions of all stamps; of equal English ones the first stamp's."""
    stamps: Captions = {}
    files = [file for file in folder.rglob("*.txt") if LETTERS not in file.as_posix()]
    for file in sorted(files):
        english, *lines = file.read_text(encoding="utf-8").splitlines()
        captions = {"en": english.strip()}
        for line in lines:
            language, _, caption = line.partition(".utf8=")
            if caption.strip():
                captions[language] = caption.strip()
        stamps.setdefault(captions["en"].lower(), captions)
    return stamps


def names_of(stamps: Captions, language: str) -> dict[str, str]:
    """Returns English caption -> name: the language's caption without article and last marks."""
    captions = {key: all_[language] for key, all_ in stamps.items() if language in all_}
    firsts = Counter(caption.split()[0].lower() for caption in captions.values())
    enough = ARTICLE_SHARE * len(captions)
    names = {}
    for key, caption in captions.items():
        first, _, rest = caption.partition(" ")
        is_article = firsts[first.lower()] >= enough and rest.strip(MARKS)
        names[key] = (rest if is_article else caption).strip(MARKS)
    return {key: name for key, name in names.items() if name}


def short_names(stamps: Captions, language: str) -> dict[str, str]:
    """Returns the names of the stamps that English calls by one word."""
    english = names_of(stamps, "en")
    names = names_of(stamps, language)
    return {key: name for key, name in names.items() if len(english[key].split()) == 1}


# ---- linking ------------------------------------------------------------------------------------


def linked(
    names: dict[str, str], texts: list[str], language: str, settings: LinkSettings | None = None
) -> list[list[dict[str, Any]]]:
    """Returns the links of each text to a knowledge base of some names."""
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "names.csv"
        with source.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "name", "aliases"])
            rows.writerows((key, name, name.lower()) for key, name in names.items())
        languages = KBSettings(languages=(language.partition("_")[0],))
        build_kb(source, out=Path(work) / "kb", settings=languages)
        linker = Linker(KnowledgeBase.open(Path(work) / "kb"), settings=settings)
        links = linker.link(texts).to_pylist()
    by_text = defaultdict(list)
    for link in links:
        by_text[link["row"]].append(link)
    return [by_text[row] for row in range(len(texts))]


def own_captions(stamps: Captions, language: str, settings: LinkSettings) -> Found:
    """Links every caption to the stamps of its language."""
    names = {
        key: name
        for key, name in names_of(stamps, language).items()
        if len(key.split()) <= MAX_WORDS
    }
    texts = [stamps[key][language] for key in names]
    answers = linked(names, texts, language, settings)
    bearers = Counter(canonical_batch(list(names.values())).to_pylist())
    found = Found(len(texts))
    for (key, name), text, links in zip(names.items(), texts, answers, strict=True):
        best = links[0]["id"] if links else "nothing"
        if best == key:
            found.right += 1
            continue
        is_shared = bearers[canonical_batch([name])[0].as_py()] > 1
        found.shared += is_shared and bool(links)
        found.nothing += not links
        if not (is_shared and links):
            found.missed.append(f"{text} -> {best}")
    found.others = len(texts) - found.right - found.shared - found.nothing
    return found


def names_in_english(stamps: Captions) -> dict[str, set[str]]:
    """Returns longer English caption -> the stamps of one word that it names."""
    names = short_names(stamps, "en")
    longer = [key for key in stamps if key not in names]
    texts = [stamps[key]["en"] for key in longer]
    links = linked(names, texts, "en")
    return {key: {link["id"] for link in found} for key, found in zip(longer, links, strict=True)}


def longer_captions(
    stamps: Captions, language: str, truth: dict[str, set[str]], settings: LinkSettings
) -> Found:
    """Links the longer captions to the stamps of one word, and compares with English."""
    names = short_names(stamps, language)
    keys = [key for key in truth if language in stamps[key]]
    texts = [stamps[key][language] for key in keys]
    found = Found()
    answers = linked(names, texts, language, settings)
    for key, text, links in zip(keys, texts, answers, strict=True):
        wanted, got = truth[key] & set(names), {link["id"] for link in links}
        found.wanted += len(wanted)
        found.right += len(wanted & got)
        found.nothing += len(wanted) if not got else 0
        found.others += len(got - wanted)
        found.missed += [f"{names[name]}: {text}" for name in sorted(wanted - got)]
    return found


if __name__ == "__main__":
    main()
