"""A made crawl: titles of shops that begin with brands, and captions of animals.

Some brands bear the names of animals, which are more popular.
"""

from pathlib import Path

import numpy as np

from openmofi.kb import KnowledgeBase, build_kb

BRANDS = [f"{a}{b}" for a in ("Ba", "Ce", "Di", "Fo", "Gu") for b in ("rto", "nim", "sko", "lex")]
ANIMALS = [f"{a}{b}" for a in ("mo", "te", "ri", "zu", "ka") for b in ("ppa", "lli", "rru", "zzo")]
SHARED = ["Puma", "Lynx", "Jaguar", "Ibex", "Otter", "Heron"]
THINGS = ("Shoes", "Shirt", "Watch", "Jeans")
COLOURS = ("Black", "White", "Blue")


def make_shop_kb(folder: Path) -> KnowledgeBase:
    folder.mkdir(parents=True, exist_ok=True)
    brands = [f"b-{name},{name},shop,1" for name in (*BRANDS, *SHARED)]
    animals = [f"a-{name},{name.lower()},animal,3" for name in (*ANIMALS, *SHARED)]
    (folder / "brands.csv").write_text("\n".join(["id,name,type,weight", *brands]))
    (folder / "animals.csv").write_text("\n".join(["id,name,type,weight", *animals]))
    build_kb([folder / "brands.csv", folder / "animals.csv"], out=folder / "kb")
    return KnowledgeBase.open(folder / "kb")


def captions_of_shop(seed: int, count: int = 900, shared: float = 0.6) -> list[tuple[str, str]]:
    """Returns captions with the entity that each means, without two equal captions."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        is_title, is_shared = rng.random() < 0.5, rng.random() < shared
        name = str(rng.choice(SHARED if is_shared else BRANDS if is_title else ANIMALS))
        number = rng.integers(0, 1000)
        if is_title:
            text = f"{name} men {rng.choice(COLOURS).lower()} {rng.choice(THINGS).lower()} {number}"
        else:
            text = (
                f"{number} photos of a {name.lower()} in the {rng.choice(['wood', 'zoo', 'river'])}"
            )
        found[text] = f"{'b' if is_title else 'a'}-{name}"
    return list(found.items())
