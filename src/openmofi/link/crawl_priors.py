"""What a crawl taught: p(entity | name) there, and the company that groups of entities keep.

In: a knowledge base and a file that `openmofi kb count --priors` wrote for it. Out: for the
candidates of mentions, the prior of this crawl and what the mention's company says of each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from openmofi.arrays.runs import repeat_runs, run_starts
from openmofi.errors import InputError, MismatchError
from openmofi.kb.index import Candidates
from openmofi.kb.store import KnowledgeBase
from openmofi.link.company import CompanyModel

VERSION = 1
"""Of the file; raise it whenever features, groups or arrays change."""


@dataclass(frozen=True)
class CrawlPriors:
    """What one crawl taught about one knowledge base."""

    kb: str
    """Fingerprint of the entities, names and priors."""
    groups: Int[np.ndarray, " entities"]
    """int16 group of every entity; -1: none, so that company tells nothing about it."""
    tilt: Float[np.ndarray, " groups"]
    """float64: how much more often entities of each group are meant than the knowledge base
    expects; the last, for entities without a group, is 1."""
    company: CompanyModel
    pairs: Int[np.ndarray, " n"]
    """The names that the crawl told about with all their entities, see `pairs_of`, sorted."""
    prior: Float[np.ndarray, " n"]
    """float32 p(entity | name) of each pair; sums to 1 over a name's entities."""
    about: dict[str, Any]
    """What it was learnt from, for people; `off` says why nothing was learnt, or is ""."""

    @property
    def off(self) -> str:
        """Why nothing was learnt, as a sentence, or ""."""
        return self.about["off"]

    def of(self, keys: np.ndarray, candidates: Candidates) -> Candidates:
        """Returns candidates with the priors of this crawl.

        Args:
            keys: name of each mention.
            candidates: what the mentions may mean.
        """
        prior = candidates.prior * self.tilt[self.groups[candidates.entity]]
        if len(self.pairs):
            wanted = pairs_of(keys[candidates.item], candidates.entity)
            at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
            prior = np.where(self.pairs[at] == wanted, self.prior[at], prior)
        return replace(candidates, prior=normalised(prior, candidates.item))

    def log_ratios(
        self,
        company: Int[np.ndarray, "n width"],
        candidates: Candidates,
        prior_weight: float = 1.0,
    ) -> Float[np.ndarray, " c"]:
        """Returns log p(company | group) / p(company) of candidates, up to a number per mention.

        This number makes the best candidate's ratio + prior_weight * log(prior / highest prior) 0.
        So company tells candidates apart, and speaks neither for nor against NIL.

        Args:
            company: features of each mention.
            candidates: what the mentions may mean, with the priors of this crawl.
            prior_weight: how much log priors count, compared with company.
        """
        ratios = np.pad(self.company.log_ratios(company), ((0, 0), (0, 1)))
        found = ratios[candidates.item, self.groups[candidates.entity]]
        prior = prior_weight * below_highest(np.log(candidates.prior), candidates.item)
        return below_highest(found + prior, candidates.item) - prior

    def save(self, path: Path) -> None:
        """Writes a file: the same bytes for the same contents."""
        from safetensors.numpy import save_file

        head = {"version": VERSION, "kb": self.kb, "trust": self.company.trust, "about": self.about}
        arrays = {
            "groups": self.groups,
            "tilt": self.tilt,
            "weights": self.company.weights,
            "bias": self.company.bias,
            "shares": self.company.shares,
            "pairs": self.pairs,
            "prior": self.prior,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, path, {"openmofi crawl priors": json.dumps(head, ensure_ascii=False)})


def read_crawl_priors(path: Path | str, kb: KnowledgeBase) -> CrawlPriors:
    """Reads what a crawl taught.

    Args:
        path: file that `openmofi kb count --priors` wrote.
        kb: the knowledge base that it is for.

    Raises:
        InputError: the file is missing or holds something else.
        MismatchError: it is of another version or for another knowledge base.
    """
    from safetensors import SafetensorError, safe_open

    again = f"write it with: openmofi kb count CAPTIONS --kb {kb.path} --priors {path}"
    try:
        with safe_open(path, "numpy") as file:
            head = json.loads((file.metadata() or {})["openmofi crawl priors"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        raise InputError(f"{str(path)!r} does not hold the priors of a crawl; {again}") from None
    if head["version"] != VERSION:
        raise MismatchError(
            f"{str(path)!r} has version {head['version']} of crawl priors, this OpenMOFI needs "
            f"{VERSION}; {again}"
        )
    if head["kb"] != kb.meta["fingerprint"]:
        raise MismatchError(
            f"{str(path)!r} was learnt for another knowledge base than {str(kb.path)!r}; {again}"
        )
    weights, bias, shares = (arrays.pop(name) for name in ("weights", "bias", "shares"))
    company = CompanyModel(weights, bias, shares, head["trust"])
    return CrawlPriors(kb=head["kb"], company=company, about=head["about"], **arrays)


def pairs_of(keys: np.ndarray, entities: np.ndarray) -> np.ndarray:
    """Returns one int64 for each name and entity, in order of names, then entities."""
    return keys.astype(np.int64) << 32 | entities.astype(np.int64)


def normalised(weights: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Returns weights divided by the sum of their run of equal items."""
    starts = run_starts(item)
    if not len(starts):
        return weights
    return weights / repeat_runs(np.add.reduceat(weights, starts), starts, len(item))


def below_highest(values: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Returns values less the highest of their run of equal items."""
    starts = run_starts(item)
    if not len(starts):
        return values
    return values - repeat_runs(np.maximum.reduceat(values, starts), starts, len(item))
