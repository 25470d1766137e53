"""The LASSO as glmnet solves it, for many training sets of one matrix at once (study 05, equation 1).

For each training set with n samples the path minimises, over a falling sequence of lambda,

    mean loss(y, b0 + x~ beta) + lambda * (alpha * |beta|_1 + (1 - alpha) / 2 * |beta|_2^2),

with x~ the genes standardised within that training set, b0 free, and the loss the binomial log-likelihood or half the
squared error (Friedman, Hastie and Tibshirani 2010). `fit_paths` and `cross_validate` take many training sets;
`LassoClassifier` is one of them in scikit-learn's manner.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from gexlib.evaluate import placed, weighted_auc
from gexlib.models.lockstep import BLOCK, Lockstep, Path
from gexlib.splits import at_most, grouped_folds

SUREST = np.log(1e5 - 1)  # the deviance takes no probability beyond 1e-5 and 1 - 1e-5, as cv.glmnet has it
PATIENCE = 15  # values of lambda past the best one before a path may end early
SETS_AT_ONCE = 5  # outer training sets that advance together; more are hardly faster and take more memory


@dataclass(frozen=True)
class CrossValidated:
    """A path with its inner cross-validation: mean `measure` (L,) and its standard error, and the two usual choices.

    `best` and `best_1se` are positions along the path: of the best mean, and of the largest lambda within one standard
    error of it. `predictor` (samples, 2) is the linear predictor of every row of X at both.
    """

    path: Path
    mean: np.ndarray
    error: np.ndarray
    best: int
    best_1se: int
    predictor: np.ndarray

    @property
    def lambda_min(self) -> float:
        """lambda of the best cross-validated mean."""
        return float(self.path.lambdas[self.best])

    @property
    def lambda_1se(self) -> float:
        """The largest lambda whose mean is within one standard error of the best."""
        return float(self.path.lambdas[self.best_1se])

    @property
    def signature(self) -> np.ndarray:
        """Columns of X kept at `lambda_min`; where that keeps none, those at the largest lambda that keeps any."""
        counts = self.path.coefficients.getnnz(axis=1)
        at = self.best if counts[self.best] else int(np.argmax(counts > 0))
        return np.sort(self.path.coefficients[at].indices)

    def genes(self, at: str = "lambda_min") -> np.ndarray:
        """Columns of X with a coefficient at `lambda_min` or `lambda_1se`."""
        return np.sort(self.path.coefficients[self.best if at == "lambda_min" else self.best_1se].indices)


def fit_paths(
    X: np.ndarray,
    y: np.ndarray,
    train_masks: np.ndarray,
    lambdas: Sequence[float] | None = None,
    *,
    n_lambdas: int = 100,
    alpha: float = 1.0,
    family: str = "binomial",
    threads: int = 2,
) -> list[Path]:
    """The path of every training set of one matrix.

    Parameters
    ----------
    X : (samples, genes) float32 or float64; never copied per training set
    y : (samples,) 0 or 1
    train_masks : (sets, samples) bool
    lambdas : one falling sequence for all sets (sorted where it is not); without it each set has its own, `n_lambdas`
        from the largest that keeps a gene down to a hundredth of it (a ten-thousandth with more samples than genes)
    alpha : share of the L1 penalty; 1 is the LASSO, less an elastic net
    family : "binomial", or "squared error" (equation 1 of Urda et al. as printed)
    threads : results do not depend on it

    Raises
    ------
    ValueError : NaN, labels other than 0 and 1, a training set of one class, a lambda that is not positive
    """
    X, y, masks = _checked(X, y, train_masks, alpha, family)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        state = Lockstep(X, y, masks, family == "binomial", alpha, pool)
        sequence = np.stack([_sequence(state, f, lambdas, n_lambdas) for f in range(len(masks))])
        blocks = [[] for _ in masks]
        for start in range(0, sequence.shape[1], BLOCK):
            found, _ = state.advance(range(len(masks)), _block(sequence, start))
            for kept, solved in zip(blocks, found, strict=True):
                kept.append(solved)
        return [state.to_path(*parts) for parts in zip(sequence, blocks, strict=True)]


def cross_validate(
    X: np.ndarray,
    y: np.ndarray,
    train_masks: np.ndarray,
    inner_folds: np.ndarray,
    lambdas: Sequence[float] | None = None,
    *,
    measure: str = "deviance",
    end_early: bool = False,
    n_lambdas: int = 100,
    alpha: float = 1.0,
    family: str = "binomial",
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[CrossValidated]:
    """The path of every training set, with lambda chosen by cross-validation inside it.

    Each training set and its inner folds share the lambdas of the training set, as in ``cv.glmnet(lambda=...)``.

    Parameters
    ----------
    X, y, train_masks, lambdas, n_lambdas, alpha, family, threads : as for `fit_paths`
    inner_folds : (sets, samples) the number of the inner fold of each training sample; others are not looked at
    measure : "deviance" (mean squared error for that family) or "auc", averaged over folds weighted by their samples
    end_early : end a path once `PATIENCE` further lambdas have not improved on the best mean
    progress : called with (sets done, sets)

    Raises
    ------
    ValueError : as `fit_paths`; and an inner fold without which, or (for "auc") in which, a class is missing
    """
    X, y, masks = _checked(X, y, train_masks, alpha, family)
    if measure not in ("deviance", "auc"):
        raise ValueError(f"measure is {measure!r}; expected 'deviance' or 'auc'.")
    inner_folds = np.atleast_2d(inner_folds)
    results: list[CrossValidated] = []
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(masks), SETS_AT_ONCE):
            rows = slice(start, start + SETS_AT_ONCE)
            groups = [
                _Group(f"training set {start + i}", y, mask, folds, measure, family == "binomial")
                for i, (mask, folds) in enumerate(zip(masks[rows], inner_folds[rows], strict=True))
            ]
            results += _cross_validate(X, y, groups, lambdas, n_lambdas, alpha, end_early, pool)
            if progress:
                progress(len(results), len(masks))
    return results


class _Group:
    """One training set and its inner folds, which are solved at the same lambdas."""

    def __init__(self, name, y, mask, folds, measure, logistic):
        numbers = np.unique(folds[mask])
        if len(numbers) < 2:
            raise ValueError(f"{name}: {len(numbers)} inner fold; expected two or more.")
        self.y, self.measure, self.logistic = y, measure, logistic
        self.held = [mask & (folds == number) for number in numbers]
        self.masks = np.stack([mask, *(mask & ~held for held in self.held)])
        for number, held in zip(numbers, self.held, strict=True):
            for part, rows in (("outside", mask & ~held), ("in", held)):
                if (part == "outside" or measure == "auc") and np.unique(y[rows]).size < 2:
                    raise ValueError(
                        f"{name}: all samples {part} inner fold {number} have the label {y[rows][0]:.0f} "
                        f"({int(y[mask].sum())} cases among {mask.sum()}); use fewer inner folds, or stratify them."
                    )
        self.sizes = np.array([held.sum() for held in self.held])
        self.blocks, self.predictors, self.measured = [], [], []

    def take(self, solved, predictors: np.ndarray) -> None:
        """Keep what one block found: predictors is (block, sets, samples), the training set first."""
        self.blocks.append(solved)
        self.predictors.append(predictors[:, 0].copy())
        for k, held in enumerate(self.held):
            self.measured.append(self._measure(self.y[held], predictors[:, k + 1][:, held]))

    def _measure(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        if self.measure == "auc":
            return np.array([weighted_auc(y == 1, row, np.ones((1, len(y))))[0] for row in eta])
        if not self.logistic:
            return ((y - eta) ** 2).mean(axis=1)
        eta = np.clip(eta, -SUREST, SUREST)
        return 2 * (np.logaddexp(0, eta) - y * eta).mean(axis=1)

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean over folds, weighted by their samples, and its standard error, at each lambda so far."""
        folds = len(self.held)
        each = np.stack([np.concatenate(self.measured[k::folds]) for k in range(folds)])
        mean = np.average(each, axis=0, weights=self.sizes)
        spread = np.average((each - mean) ** 2, axis=0, weights=self.sizes)
        return mean, np.sqrt(spread / (folds - 1))

    def has_ended(self) -> bool:
        """No better mean for `PATIENCE` lambdas."""
        mean, _ = self.curve()
        return len(mean) - 1 - self._best(mean) >= PATIENCE

    def _best(self, mean: np.ndarray) -> int:
        return int(np.argmax(mean) if self.measure == "auc" else np.argmin(mean))

    def result(self, path: Path) -> CrossValidated:
        """The choice of lambda."""
        mean, error = self.curve()
        best = self._best(mean)
        sign = -1 if self.measure == "auc" else 1
        within = int(np.argmax(sign * mean <= sign * mean[best] + error[best]))
        predictor = np.concatenate(self.predictors)[[best, within]].T
        return CrossValidated(path, mean, error, best, within, predictor)


def over_parts(
    X: np.ndarray, y: np.ndarray, patients: np.ndarray, parts: Sequence[tuple], inner_folds: int = 10, seed: int = 0,
    **options,
) -> list[CrossValidated]:  # fmt: skip
    """`cross_validate` for the training rows of every part of a repeated cross-validation (study 05, algorithm 1).

    Parameters
    ----------
    X, y : all samples; y is 0 or 1
    patients : (samples,) ids that stay in one inner fold
    parts : (repeat, train rows, test rows), as `splits.grouped_folds` yields
    inner_folds, seed : of the inner cross-validation, stratified; the seed grows by one a part
    options : of `cross_validate`
    """
    masks, inner = np.zeros((len(parts), len(y)), bool), np.full((len(parts), len(y)), -1)
    for number, (_, train, _) in enumerate(parts):
        masks[number, train] = True
        inner[number, train] = inner_fold_numbers(y[train], patients[train], inner_folds, seed + number)
    return cross_validate(X, y, masks, inner, **options)


def held_out_probabilities(fits: Sequence[CrossValidated], parts: Sequence[tuple], samples: int) -> np.ndarray:
    """What binomial fits of `over_parts` say of their test rows at lambda_min, (repeats, samples, 2)."""
    logits = [fit.predictor[test, 0] for fit, (_, _, test) in zip(fits, parts, strict=True)]
    return placed(parts, [np.column_stack([expit(-eta), expit(eta)]) for eta in logits], samples)


def _cross_validate(X, y, groups, lambdas, n_lambdas, alpha, end_early, pool) -> list[CrossValidated]:
    """One batch of training sets and all their inner folds in lock-step."""
    first = np.cumsum([0] + [len(group.masks) for group in groups])
    members = [range(a, b) for a, b in zip(first[:-1], first[1:], strict=True)]
    state = Lockstep(X, y, np.concatenate([group.masks for group in groups]), groups[0].logistic, alpha, pool)
    own = [_sequence(state, sets[0], lambdas, n_lambdas) for sets in members]
    sequence = np.repeat(own, [len(sets) for sets in members], axis=0)
    running = list(range(len(groups)))
    for start in range(0, sequence.shape[1], BLOCK):
        found, predictors = state.advance([f for g in running for f in members[g]], _block(sequence, start))
        done = 0
        for g in running:
            sets = slice(done, done + len(members[g]))
            groups[g].take(found[done], predictors[:, sets])
            done = sets.stop
        running = [g for g in running if not (end_early and groups[g].has_ended())]
        if not running:
            break
    return [g.result(state.to_path(values, g.blocks)) for g, values in zip(groups, own, strict=True)]


def _checked(X, y, masks, alpha, family):
    X, y, masks = np.asarray(X), np.asarray(y, dtype=float), np.atleast_2d(np.asarray(masks, dtype=bool))
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    if X.ndim != 2 or len(X) != len(y) or masks.shape[1] != len(y):
        raise ValueError(f"X is {X.shape}, y {y.shape}, train_masks {masks.shape}; expected the same samples in each.")
    if not np.isfinite(X).all():
        row, gene = np.argwhere(~np.isfinite(X))[0]
        raise ValueError(f"X holds NaN or infinite values, the first in row {row}, column {gene}; impute or drop them.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"y holds {np.unique(y)[:4]}; expected 0 and 1.")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected more than 0 and at most 1 (0 would be ridge: see linear.ridge).")
    if family not in ("binomial", "squared error"):
        raise ValueError(f"family is {family!r}; expected 'binomial' or 'squared error'.")
    for number, mask in enumerate(masks):
        if np.unique(y[mask]).size < 2:
            raise ValueError(f"training set {number}: {mask.sum()} samples of one class; expected cases and controls.")
    return X, y, masks


def _sequence(state: Lockstep, f: int, lambdas: Sequence[float] | None, n_lambdas: int) -> np.ndarray:
    if lambdas is not None:
        lambdas = np.sort(np.asarray(lambdas, dtype=float))[::-1]
        if lambdas.size == 0 or not np.isfinite(lambdas).all() or lambdas[-1] <= 0:
            raise ValueError("lambdas must be positive numbers, at least one.")
        return lambdas
    smallest = 0.01 if state.sets[f].weight.astype(bool).sum() < len(state.mean) else 1e-4
    return state.largest_lambda(f) * smallest ** (np.arange(n_lambdas) / max(n_lambdas - 1, 1))


def _block(sequence: np.ndarray, start: int) -> np.ndarray:
    """The lambdas of one block behind the two before it, NaN where there are none."""
    padded = np.pad(sequence, ((0, 0), (2, 0)), constant_values=np.nan)
    return padded[:, start : start + 2 + BLOCK]


class LassoClassifier(ClassifierMixin, BaseEstimator):
    """L1-penalised logistic regression with lambda chosen by cross-validation, in scikit-learn's manner.

    Parameters
    ----------
    choice : "lambda_min" or "lambda_1se"
    folds : of the inner cross-validation; all samples of one of `groups` share a fold
    measure, end_early, lambdas, n_lambdas, alpha, family, threads : as for `cross_validate`
    seed : of the folds

    Attributes
    ----------
    coef_ (1, genes), intercept_ (1,) on the scale of X; classes_; cross_validation_ (a `CrossValidated`);
    constant_genes_, the number of genes that never vary and cannot be chosen
    """

    def __init__(
        self,
        choice: str = "lambda_min",
        folds: int = 10,
        measure: str = "deviance",
        end_early: bool = False,
        lambdas: Sequence[float] | None = None,
        n_lambdas: int = 100,
        alpha: float = 1.0,
        family: str = "binomial",
        seed: int = 0,
        threads: int = 2,
    ):
        self.choice, self.folds, self.measure, self.end_early = choice, folds, measure, end_early
        self.lambdas, self.n_lambdas, self.alpha, self.family = lambdas, n_lambdas, alpha, family
        self.seed, self.threads = seed, threads

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> LassoClassifier:
        """Fit the path, choose lambda.

        Raises
        ------
        ValueError : as `cross_validate`; not two classes, or a class with fewer members than folds
        """
        if self.choice not in ("lambda_min", "lambda_1se"):
            raise ValueError(f"choice is {self.choice!r}; expected 'lambda_min' or 'lambda_1se'.")
        X = np.asarray(X)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(f"y holds {len(self.classes_)} classes ({self.classes_[:4]}); expected two.")
        inner = inner_fold_numbers(numbers, np.arange(len(X)) if groups is None else groups, self.folds, self.seed)
        (found,) = cross_validate(
            X, numbers, np.ones((1, len(X)), bool), inner[None], self.lambdas, measure=self.measure,
            end_early=self.end_early, n_lambdas=self.n_lambdas, alpha=self.alpha, family=self.family,
            threads=self.threads,
        )  # fmt: skip
        at = found.best if self.choice == "lambda_min" else found.best_1se
        self.cross_validation_, self.n_features_in_ = found, X.shape[1]
        self.constant_genes_ = int((X == X[0]).all(axis=0).sum())
        self.coef_ = found.path.coefficients[at].toarray()
        self.intercept_ = found.path.intercepts[at : at + 1]
        margin = found.predictor[:, 0] * np.where(numbers == 1, 1, -1)
        if self.family == "binomial" and margin.min() > 0 and found.best == len(found.path.lambdas) - 1:
            warnings.warn(
                "the classes are perfectly separated and the cross-validated deviance still falls at the smallest "
                "lambda: the coefficients are finite only because of the penalty, and their size means nothing.",
                stacklevel=2,
            )
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """The linear predictor, (samples,)."""
        check_is_fitted(self)
        return np.asarray(X, dtype=float) @ self.coef_[0] + self.intercept_[0]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(samples, 2) probabilities; for "squared error" the fitted value, cut to [0, 1]."""
        eta = self.decision_function(X)
        p = expit(eta) if self.family == "binomial" else np.clip(eta, 0, 1)
        return np.column_stack([1 - p, p])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likelier class."""
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]


def lasso_recipe(inner_folds: int = 10, alpha: float = 1.0) -> Callable:
    """A fitting recipe (x, y, patients, seed) -> predict, for `evaluate.predictions`: lambda_min, path ended early."""

    def fit(x, y, patients, seed):
        model = LassoClassifier(folds=at_most(inner_folds, y, patients), alpha=alpha, end_early=True, seed=seed)
        return model.fit(x, y, groups=patients).predict_proba

    return fit


def inner_fold_numbers(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The number of each sample's fold, stratified by class, all samples of a group in one fold.

    Raises
    ------
    CohortError : a class has fewer groups than folds
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    if (y == y[first][group]).all() and np.bincount(y[first], minlength=2).min() >= folds:
        # one label a group: folds of groups, a hundred times faster than weighing groups of mixed labels
        numbers = np.empty(len(first), int)
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(splitter.split(first, y[first])):
            numbers[held] = number
        return numbers[group]
    numbers = np.empty(len(y), int)
    for number, (_, _, held) in enumerate(grouped_folds(y, groups, folds, seed=seed)):
        numbers[held] = number
    return numbers
