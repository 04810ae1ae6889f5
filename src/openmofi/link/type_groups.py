"""Types of entities -> a few groups that keep different company in some captions.

In: types and sources of all entities, and the company of mentions that can only be of one kind.
Out: a group for every entity.

An entity's **kind** is the most frequent of its types in the knowledge base: `entity` for all of
WordNet, a shop's main line for brands. Kinds of which the captions have fewer than ten names are
pooled with the others like them from the same source. Then kinds that keep the same company are
united, because a dozen names say little about the company of shoe shops, and hundreds much about
that of brands. Ward's method (J. Am. Stat. Assoc. 58, 1963) unites, always two at a time, those
whose union adds least to the squared distances of names from the mean of their group; it stops when
a union would add more than twice the variance of names within kinds. A name counts once, however
often it occurs.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from openmofi.arrays.runs import run_numbers, run_starts
from openmofi.link.company import DIM

FEWEST_NAMES = 10
"""Names of a kind below which it is pooled, and of a group below which it is united with another,
whatever that adds."""
NO_GROUP = -1
_MOST_KINDS = 128
"""Kinds beyond the most frequent ones stay without a group."""
_SIGNIFICANT = 2.0
_COLUMNS = 2048


def kinds_of(types: pa.ListArray) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Returns (the kind of each entity, the type that names each kind).

    Args:
        types: ids or words, by entity; without any, its kind is one more than those of types.
    """
    encoded = types.flatten().dictionary_encode()
    code, names = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    # The most frequent first, and of equally frequent ones the first by name.
    times = np.bincount(code, minlength=len(names))
    order = sorted(range(len(names)), key=lambda k: (-times[k], names[k]))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    kind = np.full(len(types), len(names), np.int64)
    np.minimum.at(kind, pc.list_parent_indices(types).to_numpy(), place[code])
    return kind, [names[k] for k in order]


def pool_rare_kinds(
    kind: Int[np.ndarray, " n"], source: Int[np.ndarray, " n"], num_names: Int[np.ndarray, " kinds"]
) -> Int[np.ndarray, " n"]:
    """Returns kinds in which the rare ones of each source are one, numbered after all others.

    Args:
        kind: of each entity.
        source: number of the input that each came from.
        num_names: how many names in the captions can only be of each kind; the last kind, of
            entities without types, counts as rare.
    """
    rare = num_names[kind] < FEWEST_NAMES
    rare |= kind == len(num_names) - 1
    return np.where(rare, len(num_names) + source, kind)


def unite_kinds(
    company: Int[np.ndarray, "n width"], kind: Int[np.ndarray, " n"], name: Int[np.ndarray, " n"]
) -> dict[int, int]:
    """Returns the group of each kind that occurs, the group with the most names first.

    Args:
        company: features of mentions, see `company_of`.
        kind: the only kind that each mention can be of.
        name: key of each mention's name.
    """
    means, kind_of_name = _mean_company(company, kind, name)
    kinds, counts = np.unique(kind_of_name, return_counts=True)
    kinds = kinds[np.lexsort((kinds, -counts))][:_MOST_KINDS]
    sizes = np.sort(counts)[::-1][:_MOST_KINDS].astype(np.float64)
    of_kinds = [means[kind_of_name == k] for k in kinds]
    centres = np.stack([of_kind.mean(0) for of_kind in of_kinds]) if of_kinds else means
    within = sum(
        float(((part - mean) ** 2).sum()) for part, mean in zip(of_kinds, centres, strict=True)
    )
    variance = within / max(sizes.sum() - len(kinds), 1)
    members = [[k] for k in kinds.tolist()]
    while len(members) > 1:
        squares = ((centres[:, None] - centres) ** 2).sum(2)
        added = squares * np.outer(sizes, sizes) / np.add.outer(sizes, sizes)
        np.fill_diagonal(added, np.inf)
        is_small = sizes < FEWEST_NAMES
        may_unite = (added <= _SIGNIFICANT * variance) | is_small | is_small[:, None]
        added[~may_unite] = np.inf
        a, b = divmod(int(added.argmin()), len(sizes))
        if np.isinf(added[a, b]):
            break
        centres[a] = (sizes[a] * centres[a] + sizes[b] * centres[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        members[a] += members[b]
        centres, sizes = np.delete(centres, b, 0), np.delete(sizes, b)
        del members[b]
    order = sorted(range(len(members)), key=lambda group: (-sizes[group], members[group]))
    return {k: group for group, at in enumerate(order) for k in members[at]}


def _mean_company(
    company: np.ndarray, kind: np.ndarray, name: np.ndarray
) -> tuple[Float[np.ndarray, "names columns"], Int[np.ndarray, " names"]]:
    """Returns (square roots of the shares of features, kind) of every name of every kind."""
    order = np.lexsort((kind, name))
    company, kind, name = company[order], kind[order], name[order]
    number = np.repeat(run_numbers(name, kind), company.shape[1])
    known = company.ravel() != DIM
    cells = (number * _COLUMNS + company.ravel() % _COLUMNS)[known]
    starts = run_starts(name, kind)
    counts = np.bincount(cells, minlength=len(starts) * _COLUMNS).reshape(-1, _COLUMNS)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return np.sqrt(shares), kind[starts]
