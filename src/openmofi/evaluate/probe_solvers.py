"""Logistic regression for one C: scikit-learn's on a CPU, PyTorch's gradients on a GPU.

The objective is scikit-learn's: C * sum of the log losses + |weights|^2 / 2, biases free.
Legend: N images, D width, K classes (one row of weights for two classes, as scikit-learn has it).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

MAX_ITERATIONS = 1000
TOLERANCE = 1e-4
"""Largest entry of the gradient at which a solver stops, as a share of that of `_prior`. An
absolute one, like scikit-learn's 1e-4, would stop before the first step where classes are many:
its gradient is a mean over images, and entries of unit vectors are small."""

_SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Probe:
    """A fitted classifier and how it was found."""

    weights_KD: np.ndarray
    biases_K: np.ndarray
    C: float
    """Inverse strength of the regularisation."""
    solver: str
    tolerance: float
    """Of the gradient's largest entry, the loss being a mean over images."""
    iterations: int
    converged: bool


Solver = Callable[[np.ndarray, np.ndarray, float, Probe | None], Probe]


def solve_sklearn(
    vectors: np.ndarray, columns: np.ndarray, C: float, start: Probe | None = None
) -> Probe:
    """Fits with scikit-learn's L-BFGS in double precision."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    prior = _prior(vectors, columns, C)
    start, tolerance = start or prior, prior.tolerance
    model: Any = LogisticRegression(C=C, tol=tolerance, max_iter=MAX_ITERATIONS, warm_start=True)
    model.coef_, model.intercept_ = start.weights_KD.copy(), start.biases_K.copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(vectors.astype(np.float64), columns)
    failed = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    for warning in caught:
        if warning not in failed:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    iterations = int(np.max(model.n_iter_))
    return Probe(
        model.coef_, model.intercept_, C, "scikit-learn lbfgs", tolerance, iterations, not failed
    )


def _prior(vectors: np.ndarray, columns: np.ndarray, C: float) -> Probe:
    """Returns the classifier that knows nothing but how frequent the classes are.

    A solver begins there unless told otherwise, and its tolerance follows from the gradient there.
    """
    counts = np.bincount(columns)
    shares = counts / len(columns)
    order = np.argsort(columns, kind="stable")
    starts = np.cumsum(counts) - counts
    sums_KD = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
    gradient_KD = np.outer(shares, sums_KD.sum(0) / len(vectors)) - sums_KD / len(vectors)
    tolerance = max(TOLERANCE * float(np.abs(gradient_KD).max()), 1e-14)
    biases_K = np.log(shares)
    if len(counts) == 2:
        biases_K = biases_K[1:] - biases_K[:1]
    weights_KD = np.zeros((len(biases_K), vectors.shape[1]))
    return Probe(weights_KD, biases_K, C, "none", tolerance, 0, True)


def solver_on(device: str) -> Solver:
    """Returns scikit-learn's solver for cpu, PyTorch's for cuda or cuda:N."""
    return solve_sklearn if device == "cpu" else torch_solver(device)


def torch_solver(device: str) -> Solver:
    """Returns a solver that computes losses and gradients with PyTorch, in full batches.

    SciPy's L-BFGS takes the steps, as it does within scikit-learn, in double precision. Scores
    are float32 on a GPU, float64 on the CPU.
    """

    def solve(
        vectors: np.ndarray, columns: np.ndarray, C: float, start: Probe | None = None
    ) -> Probe:
        return _solve_torch(vectors, columns, C, start, torch.device(device))

    return solve


def _solve_torch(
    vectors: np.ndarray, columns: np.ndarray, C: float, start: Probe | None, device: torch.device
) -> Probe:
    from scipy.optimize import minimize

    prior = _prior(vectors, columns, C)
    start, tolerance = start or prior, prior.tolerance
    kind = torch.float64 if device.type == "cpu" else torch.float32
    objective = _Objective(
        torch.as_tensor(vectors, dtype=kind, device=device),
        torch.as_tensor(columns, dtype=torch.int64, device=device),
        len(prior.biases_K),
        C,
    )
    first = np.c_[start.weights_KD, start.biases_K]
    limits = {"maxiter": MAX_ITERATIONS, "maxfun": 10**6, "maxls": 50}
    options = limits | {"gtol": tolerance, "ftol": 1e-14}  # but for the numbers, scikit-learn's
    found = minimize(objective, first.ravel(), method="L-BFGS-B", jac=True, options=options)
    solution = found.x.reshape(first.shape)
    return Probe(
        solution[:, :-1],
        solution[:, -1],
        C,
        f"L-BFGS, {str(kind).removeprefix('torch.')} gradients on {device.type}",
        tolerance,
        int(found.nit),
        bool(found.success),
    )


class _Objective:
    """Mean log loss plus |weights|^2 / (2 C N), and its gradient, over blocks of images."""

    def __init__(self, x_ND: torch.Tensor, y_N: torch.Tensor, rows: int, C: float):
        self.x_ND, self.y_N, self.rows = x_ND, y_N, rows
        self.strength = 1 / (C * len(x_ND))

    @torch.inference_mode()
    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns (loss, gradient) of weights and biases, [rows, dim + 1], as one line."""
        theta = torch.from_numpy(flat).to(self.x_ND.device).view(self.rows, -1)
        weights, biases = (part.to(self.x_ND.dtype) for part in (theta[:, :-1], theta[:, -1]))
        loss = torch.zeros((), dtype=torch.float64, device=theta.device)
        gradient = torch.zeros_like(theta)
        step = max(_SCORES_AT_ONCE // self.rows, 1)
        for x_BD, y_B in zip(self.x_ND.split(step), self.y_N.split(step), strict=True):
            score_BK = torch.addmm(biases, x_BD, weights.T)
            if self.rows == 1:
                score_BK = torch.cat([torch.zeros_like(score_BK), score_BK], 1)
            log_BK = score_BK.log_softmax(1)
            loss -= log_BK.gather(1, y_B[:, None]).sum(dtype=torch.float64)
            error_BK = log_BK.exp()
            error_BK[torch.arange(len(y_B), device=y_B.device), y_B] -= 1
            error_BK = error_BK[:, -self.rows :]
            gradient[:, :-1] += error_BK.T @ x_BD
            gradient[:, -1] += error_BK.sum(0)
        weights = theta[:, :-1]
        loss = loss / len(self.y_N) + self.strength / 2 * weights.square().sum()
        gradient /= len(self.y_N)
        gradient[:, :-1] += self.strength * weights
        return float(loss), gradient.cpu().numpy().ravel()
