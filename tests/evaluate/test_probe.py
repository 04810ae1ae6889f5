"""The linear probe against Newton's method, and the search that chooses its strength."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.evaluate import probe as module
from openmofi.evaluate import probe_solvers
from openmofi.evaluate.probe import fit_probe, probe, probe_scores, validation_rows
from openmofi.evaluate.probe_solvers import solve_sklearn, solver_on, torch_solver


@pytest.fixture(params=["sklearn", "torch"])
def solver(request):
    return solve_sklearn if request.param == "sklearn" else torch_solver("cpu")


def _data(seed=0, classes=6, dim=5, count=150, noise=1.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, dim))
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=count - classes)])
    vectors = centres[labels] + noise * rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def _objective(weights, biases, vectors, labels, C):
    """C * sum of log losses + |weights|^2 / 2, written from the definition."""
    scores = vectors.astype(np.float64) @ weights.T + biases
    if len(weights) == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    total = sum(np.log(np.exp(s).sum()) - s[y] for s, y in zip(scores, labels, strict=True))
    return C * total + (weights**2).sum() / 2


def _newton(vectors, labels, C, steps=60):
    """Minimises the objective by damped Newton steps on a numerical Hessian of its gradient."""
    x, count = np.c_[vectors.astype(np.float64), np.ones(len(vectors))], labels.max() + 1
    penalty = np.tile(np.r_[np.ones(x.shape[1] - 1), 1e-9], count)
    theta = np.zeros(count * x.shape[1])
    for _ in range(steps):
        e = np.exp(x @ theta.reshape(count, -1).T)
        p = e / e.sum(1, keepdims=True)
        gradient = C * ((p - np.eye(count)[labels]).T @ x).ravel() + penalty * theta
        hessian = np.diag(penalty)
        for row, share in zip(x, p, strict=True):
            hessian += C * np.kron(np.diag(share) - np.outer(share, share), np.outer(row, row))
        theta = theta - 0.7 * np.linalg.solve(hessian, gradient)
    return theta.reshape(count, -1)


@pytest.mark.parametrize("C", [0.01, 0.316, 30.0])
def test_the_objective_is_that_of_newtons_method(solver, C):
    vectors, labels = _data(classes=4, count=80)
    best = _newton(vectors, labels, C)
    fitted = solver(vectors, labels, C, None)
    wanted = _objective(best[:, :-1], best[:, -1], vectors, labels, C)
    got = _objective(fitted.weights_KD, fitted.biases_K, vectors, labels, C)
    assert got == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(fitted.weights_KD, best[:, :-1], atol=0.02 * C**0.5)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("C", [1e-4, 1.0, 1e3])
def test_both_solvers_find_the_same_classifier(classes, C):
    vectors, labels = _data(classes=classes)
    one, other = (s(vectors, labels, C, None) for s in (solve_sklearn, torch_solver("cpu")))
    assert one.converged
    assert other.converged
    costs = [_objective(f.weights_KD, f.biases_K, vectors, labels, C) for f in (one, other)]
    assert costs[0] == pytest.approx(costs[1], rel=1e-4)


def test_many_classes_do_not_stop_the_solver_before_its_first_step(solver):
    vectors, labels = _data(classes=300, dim=16, count=900, noise=0.1)
    fitted = solver(vectors, labels, 1.0, None)
    assert fitted.iterations > 5
    assert fitted.tolerance < 1e-6


def test_a_start_near_the_end_saves_steps(solver):
    vectors, labels = _data()
    cold = solver(vectors, labels, 1.0, None)
    warm = solver(vectors, labels, 1.0, cold)
    assert warm.iterations < cold.iterations


def test_both_solvers_score_alike():
    (train, labels), (test, truth) = _data(1, count=400), _data(2, count=1000)
    one = dict(probe(test, truth, train, labels))
    fitted = fit_probe(train, labels, solver=torch_solver("cpu"))
    right = (module._ranks(fitted, test, truth) == 0).mean()
    assert one["probe"] == pytest.approx(right, abs=0.003)
    assert one["probe"] > 2 / 6
    assert set(one) == {"probe", "probe_top5", "probe_per_class", "probe_c", "probe_converged"}


def test_the_search_follows_the_peak_to_eight_steps_per_decade(monkeypatch):
    asked = []

    def solver(vectors, columns, C, start):
        asked.append(round(8 * np.log10(C)))
        return probe_solvers.Probe(np.eye(2), np.zeros(2), C, "", 0, 0, True)

    monkeypatch.setattr(
        module, "_ranks", lambda fitted, *_: np.array([abs(np.log10(fitted.C) - 1)])
    )
    monkeypatch.setattr(module, "_accuracy", lambda ranks: -float(ranks[0]))
    fitted = fit_probe(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), solver=solver)
    assert asked[:7] == [-48, -32, -16, 0, 16, 32, 48]
    assert asked[7:] == [-8, 8, 4, 12, 6, 10, 7, 9, 8]
    assert pytest.approx(10) == fitted.C


def test_the_held_out_part_chooses_and_not_the_part_that_is_learnt_from():
    vectors, labels = _data(3, classes=4, dim=60, count=240)
    labels[::4] = np.random.default_rng(7).integers(4, size=60)  # to fit these is to learn noise
    held_out = validation_rows(labels, seed=0)

    def accuracy(C, rows):
        fitted = solve_sklearn(vectors[~held_out], labels[~held_out], C)
        scores = vectors[rows] @ fitted.weights_KD.T + fitted.biases_K
        return (scores.argmax(1) == labels[rows]).mean()

    chosen = fit_probe(vectors, labels).C
    assert accuracy(chosen, held_out) >= max(
        accuracy(C, held_out) for C in 10.0 ** np.arange(-6, 7)
    )
    assert accuracy(1e5, ~held_out) == 1.0
    assert accuracy(chosen, ~held_out) < 1.0


def _middle_of_the_plateau(accuracy):
    """Tries every run of neighbours, from the definition."""
    steps, best = sorted(accuracy), max(accuracy.values())
    runs = [
        steps[i:j]
        for i in range(len(steps))
        for j in range(i + 1, len(steps) + 1)
        if all(accuracy[s] == best for s in steps[i:j])
    ]
    width = max(run[-1] - run[0] for run in runs)
    run = next(run for run in runs if run[-1] - run[0] == width)
    return sorted(run, key=lambda s: (abs(s - (run[0] + run[-1]) / 2), s))[0]


@given(st.dictionaries(st.integers(-48, 48), st.sampled_from([0.5, 0.9, 1.0]), min_size=1))
def test_the_peak_is_the_middle_of_the_widest_plateau(accuracy):
    assert module._peak(accuracy) == _middle_of_the_plateau(accuracy)


def test_on_separable_data_no_end_of_the_search_is_chosen(solver):
    labels = np.repeat(np.arange(3), [100, 10, 10])  # the frequent one wins where C is small
    rng = np.random.default_rng(4)
    vectors = (np.eye(3, 8)[labels] + 0.02 * rng.standard_normal((120, 8))).astype(np.float32)
    fitted = fit_probe(vectors, labels, solver=solver)
    assert 10 < fitted.C < 1e5
    assert (module._ranks(fitted, vectors, labels) == 0).all()


def test_data_that_any_strength_separates_is_fitted_with_one():
    vectors, labels = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0), np.repeat(range(3), 10)
    assert fit_probe(vectors, labels).C == 1.0


def test_a_probe_is_its_fit_and_its_scores():
    (train, labels), (test, truth) = _data(1), _data(2)
    fitted = fit_probe(train, labels, solver=solver_on("cpu"))
    apart = dict(probe_scores(fitted, test, truth, np.unique(labels)))
    assert apart == dict(probe(test, truth, train, labels))
    assert fitted.solver == "scikit-learn lbfgs"
    assert 0 < fitted.tolerance < probe_solvers.TOLERANCE
    assert 0 < fitted.iterations < probe_solvers.MAX_ITERATIONS


def test_each_class_of_two_is_in_both_parts_and_none_alone_in_validation():
    columns = np.repeat(np.arange(5), [1, 2, 3, 10, 100])
    held_out = validation_rows(columns, seed=3)
    assert np.bincount(columns[held_out], minlength=5).tolist() == [0, 1, 1, 2, 20]
    again, other = (validation_rows(columns, seed=s) for s in (3, 4))
    np.testing.assert_array_equal(held_out, again)
    assert (held_out != other).any()


def test_classes_that_training_lacks_count_as_wrong():
    train, labels = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0), np.repeat([10, 20, 40], 4)
    scores = dict(probe(train, np.repeat([10, 20, 30], 4), train, labels))
    assert scores["probe"] == pytest.approx(2 / 3)
    assert scores["probe_unseen_classes"] == 1.0
    assert dict(probe(train[:4], np.full(4, 99), train, labels))["probe"] == 0.0


def test_two_classes_have_one_row_of_weights(solver):
    vectors, labels = _data(classes=2)
    fitted = solver(vectors, labels, 1.0, None)
    assert fitted.weights_KD.shape == (1, 5)
    assert (module._ranks(fitted, vectors, labels) == 0).mean() > 0.6


def test_a_solver_cut_short_says_so_and_warns_nobody(solver, monkeypatch):
    monkeypatch.setattr(probe_solvers, "MAX_ITERATIONS", 2)
    fitted = solver(*_data(), 1e3, None)
    assert (fitted.converged, fitted.iterations) == (False, 2)


def test_other_warnings_of_scikit_learn_pass(monkeypatch):
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(LogisticRegression, "fit", lambda *_: warnings.warn("odd", stacklevel=1))
    monkeypatch.setattr(LogisticRegression, "n_iter_", [1], raising=False)
    monkeypatch.setattr(LogisticRegression, "coef_", np.eye(2), raising=False)
    monkeypatch.setattr(LogisticRegression, "intercept_", np.zeros(2), raising=False)
    with pytest.warns(UserWarning, match="odd"):
        assert solve_sklearn(*_data(), 1.0).converged


@pytest.mark.parametrize(
    ("labels", "says"),
    [([1, 1, 1], "two classes or more; there is 1"), ([1, 2, 3], "each of the 3 classes has one")],
)
def test_too_little_to_learn_from_is_refused(labels, says):
    with pytest.raises(InputError, match=says):
        fit_probe(np.eye(3, dtype=np.float32), np.array(labels))


def test_vectors_that_are_not_finite_are_refused():
    good, labels = _data()
    bad = good.copy()
    bad[3, 1] = np.nan
    for test, train in ((bad, good), (good, bad)):
        with pytest.raises(InputError, match="1 of 150 embeddings"):
            dict(probe(test, labels, train, labels))


def test_the_strongest_regularisation_leaves_how_frequent_classes_are(solver):
    vectors, labels = _data(count=100)
    labels[labels == 5] = 4
    fitted = solver(vectors, labels, 1e-9, None)
    shares = np.exp(fitted.biases_K) / np.exp(fitted.biases_K).sum()
    np.testing.assert_allclose(shares, np.bincount(labels) / 100, atol=1e-4)
    assert np.abs(fitted.weights_KD).max() < 1e-4


def test_single_precision_finds_the_same_classifier():
    import torch

    vectors, labels = _data()
    wanted = torch_solver("cpu")(vectors, labels, 1.0, None)
    theta = np.c_[wanted.weights_KD, wanted.biases_K].ravel()
    rows, answers = torch.from_numpy(vectors), torch.from_numpy(labels)
    loss, slope = probe_solvers._Objective(rows, answers, 6, 1.0)(theta)
    exact, steep = probe_solvers._Objective(rows.double(), answers, 6, 1.0)(theta)
    assert loss == pytest.approx(exact, rel=1e-6)
    np.testing.assert_allclose(slope, steep, atol=1e-6)


def test_blocks_change_no_loss_and_no_gradient(monkeypatch, rng):
    import torch

    vectors, labels = (torch.from_numpy(part) for part in _data())
    theta = rng.standard_normal(6 * 6)
    loss, slope = probe_solvers._Objective(vectors.double(), labels, 6, 1.0)(theta)
    monkeypatch.setattr(probe_solvers, "_SCORES_AT_ONCE", 100)
    parts, split = probe_solvers._Objective(vectors.double(), labels, 6, 1.0)(theta)
    assert parts == pytest.approx(loss)
    np.testing.assert_allclose(split, slope, atol=1e-12)
