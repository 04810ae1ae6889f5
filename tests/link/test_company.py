import math

import numpy as np
import pytest

from openmofi.arrays.hashing import Hasher
from openmofi.kb.text import tokenise
from openmofi.link.company import DIM, CompanyModel, company_of, fit_company, measure_trust

HASHER = Hasher(0)


def features(caption: str, name: str) -> np.ndarray:
    start = np.array([caption.index(name)])
    return company_of(tokenise([caption]), np.array([0]), start, start + len(name), HASHER)[0]


def draw(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Company of two groups: the second stands first, and mostly before shoes."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, count)
    captions = [
        f"X {rng.choice(['shoes', 'shirt'])} {rng.choice(['red', 'blue'])}"
        if one
        else f"a {rng.choice(['red', 'old'])} X in the {rng.choice(['wood', 'city'])}"
        for one in group
    ]
    return np.stack([features(caption, "X") for caption in captions]), group


def test_the_name_itself_is_no_feature():
    assert features("my Nike shoes", "Nike").tolist() == features("my Ajax shoes", "Ajax").tolist()


@pytest.mark.parametrize(
    "other", ["her Nike shoes", "my Nike boots", "Nike my shoes", "my Nike shoes here"]
)
def test_words_around_and_place_are_features(other):
    assert features("my Nike shoes", "Nike").tolist() != features(other, "Nike").tolist()


def test_names_of_several_words_and_accents_have_the_company_of_others():
    one, other = features("my New Balance shoes", "New Balance"), features("my Ajax shoes", "Ajax")
    assert one[:14].tolist() == other[:14].tolist()
    assert one[14] != DIM
    assert features("Ça Nike", "Nike").tolist() == features("ca Nike", "Nike").tolist()


def test_a_caption_that_is_only_a_name_has_only_a_place():
    assert (features("Nike", "Nike") == DIM).sum() == 12


def test_no_mentions_have_no_company():
    nothing = np.zeros(0, np.int64)
    assert company_of(tokenise(["a"]), nothing, nothing, nothing, HASHER).shape == (0, 15)


def test_ratios_are_those_of_a_posterior_and_shares_computed_by_hand():
    company, group = draw(0)
    model = fit_company(company, group)
    one = company[0]
    logits = [
        model.bias[g] + sum(float(model.weights[k, g]) for k in one if k != DIM) for g in (0, 1)
    ]
    total = math.log(sum(math.exp(value) for value in logits))
    share = [(group == g).mean() for g in (0, 1)]
    expected = [logits[g] - total - math.log(share[g]) for g in (0, 1)]
    assert model.log_ratios(company[:1])[0] == pytest.approx(expected, abs=1e-5)


def test_company_tells_groups_apart_on_captions_not_seen():
    company, group = draw(0)
    unseen, truth = draw(1)
    assert (fit_company(company, group).log_ratios(unseen).argmax(1) == truth).all()


def test_three_groups_are_told_apart_too():
    company, group = draw(0)
    third = np.stack([features(f"{k} views of X", "X") for k in range(30)])
    model = fit_company(np.concatenate([company, third]), np.r_[group, np.full(30, 2)])
    assert model.log_ratios(third).argmax(1).tolist() == [2] * 30


def test_trust_multiplies_log_ratios():
    company, group = draw(0)
    model = fit_company(company, group)
    half = CompanyModel(model.weights, model.bias, model.shares, 0.5)
    assert half.log_ratios(company) == pytest.approx(model.log_ratios(company) / 2)


def test_trust_is_the_best_of_a_fine_grid():
    rng = np.random.default_rng(0)
    shares = np.array([0.7, 0.3])
    truth = rng.random(2000) < 0.3
    ratios = np.where(truth[:, None], [-2.0, 1.0], [0.3, -1.5]) + rng.normal(size=(2000, 2))
    belief = np.where(truth[:, None], [0.3, 0.7], [0.7, 0.3])

    def likelihood(trust: float) -> float:
        found = 0.0
        for (a, b), (p, q) in zip(ratios, belief, strict=True):
            x, y = math.exp(trust * a), math.exp(trust * b)
            found += math.log((p * x + q * y) / (shares[0] * x + shares[1] * y))
        return found

    grid = np.linspace(0, 3, 301)
    best = grid[np.argmax([likelihood(trust) for trust in grid])]
    assert measure_trust(ratios, shares, belief) == pytest.approx(best, abs=0.01)


def test_company_that_contradicts_everything_else_is_not_trusted():
    ratios = np.tile([[1.0, -3.0]], (500, 1))
    belief = np.tile([[0.1, 0.9]], (500, 1))
    assert measure_trust(ratios, np.array([0.8, 0.2]), belief) == 0.0
