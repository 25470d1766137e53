"""Linear baselines: what a regularised linear model makes of the same genes and the same folds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from gexlib.evaluate import class_auc_scores, one_thread, predictions, with_intervals
from gexlib.prep import welch_p_values
from gexlib.splits import at_most, grouped_folds, inner_split

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C on z-scored genes; smaller is stronger


def _regression(model) -> Pipeline:
    """z-scored genes, rotated onto all principal axes of the training samples, then `model`.

    A rotation leaves an L2 penalty as it is, so this is exact; with fewer samples than genes it is many times faster.
    """
    return make_pipeline(StandardScaler(), PCA(svd_solver="full"), model)


def ridge(inner_folds) -> Pipeline:
    """Multinomial logistic regression with an L2 penalty, its strength chosen by log-loss on `inner_folds`.

    Parameters
    ----------
    inner_folds : (train, test) index pairs within the samples given to `fit`

    Returns
    -------
    Pipeline scaler -> rotation -> regression
    """
    chosen = LogisticRegressionCV(
        Cs=PENALTIES,
        cv=inner_folds,
        scoring="neg_log_loss",
        solver="newton-cg",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    return _regression(chosen)


def fixed_ridge(penalty: float = 1e-3) -> Pipeline:
    """`ridge` at one strength of the penalty: quick, and nothing is chosen."""
    return _regression(LogisticRegression(C=penalty, solver="newton-cg"))


def fixed_ridge_recipe(scale: bool = True) -> Callable:
    """A fitting recipe for `fixed_ridge`; without `scale` for genes that are on one scale already, of other samples."""
    first = 0 if scale else 1  # the first step of the pipeline scales
    return lambda x, y, patients, seed: fixed_ridge()[first:].fit(x, y).predict_proba


def ridge_recipe(inner_folds: int = 3) -> Callable:
    """A fitting recipe (x, y, patients, seed) -> predict: `ridge`, inner folds by patient, fewer for a rare class."""

    def fit(x, y, patients, seed):
        parts = grouped_folds(y, patients, at_most(inner_folds, y, patients), seed=seed)
        inner = [(train, test) for _, train, test in parts]
        return ridge(inner).fit(x, y).predict_proba

    return fit


def multinomial(penalty: float = 1e-2) -> Pipeline:
    """Multinomial logistic regression with an L2 penalty on z-scored genes, for many classes.

    The solver stops at a gradient of 0.01, which changes no prediction that is worth a decimal.
    """
    return _regression(LogisticRegression(C=penalty, tol=1e-2, max_iter=500))


def multinomial_recipe(penalties: tuple[float, ...] = (1e-2,)) -> Callable:
    """A fitting recipe for `multinomial`.

    Where there are several penalties, a fifth of the training patients chooses one by log-loss, and the model is fitted
    again on all of them.
    """

    def fit(x, y, patients, seed):
        best = penalties[0]
        if len(penalties) > 1:
            rows, chooses = inner_split(y, patients, seed)
            guesses = [multinomial(c).fit(x[rows], y[rows]).predict_proba(x[chooses]) for c in penalties]
            best = penalties[int(np.argmin([log_loss(y[chooses], guess) for guess in guesses]))]
        return multinomial(best).fit(x, y).predict_proba

    return fit


def nearest_centroid_recipe() -> Callable:
    """A fitting recipe for the nearest class mean of z-scored genes, those that never vary left out."""

    def fit(x, y, patients, seed):
        return make_pipeline(VarianceThreshold(), StandardScaler(), NearestCentroid()).fit(x, y).predict_proba

    return fit


def after_t_test(fit: Callable, genes: int) -> Callable:
    """The recipe `fit` on the genes with the smallest p-values (Welch) among the training samples it is given."""

    def fit_chosen(x, y, patients, seed):
        chosen = np.argsort(welch_p_values(x, y), kind="stable")[:genes]
        predict = fit(x[:, chosen], y, patients, seed)
        return lambda new: predict(new[:, chosen])

    return fit_chosen


def columns_recipe() -> Callable:
    """A fitting recipe for a handful of clinical columns: logistic regression on z-scored columns."""
    return lambda x, y, patients, seed: make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y).predict_proba


def class_shares_recipe() -> Callable:
    """A fitting recipe that looks at no gene: the majority class, with the training class shares as probabilities."""
    return lambda x, y, patients, seed: DummyClassifier(strategy="prior").fit(x, y).predict_proba


def gene_coefficients(pipeline: Pipeline) -> np.ndarray:
    """Coefficients of a fitted ridge model on the z-scored genes, classes x genes."""
    coefficients = pipeline[-1].coef_ @ pipeline[1].components_
    return np.vstack([-coefficients, coefficients]) if len(coefficients) == 1 else coefficients  # two classes: one row


def coefficient_sizes(data, penalty: float = 1e-2) -> np.ndarray:
    """Sizes of the coefficients of `multinomial` on z-scored genes, averaged over the training parts of `data`.

    Parameters
    ----------
    data : has X, y and parts

    Returns
    -------
    (classes, genes), each class scaled to a largest of 1
    """
    with one_thread():
        fits = [multinomial(penalty).fit(data.X[train], data.y[train]) for _, train, _ in data.parts]
    sizes = np.mean([np.abs(gene_coefficients(fit)) for fit in fits], axis=0)
    return sizes / sizes.max(axis=1, keepdims=True)


def pair_auc(
    x: np.ndarray, y: np.ndarray, patients: np.ndarray, pair: tuple[int, int], seed: int = 0
) -> tuple[float, float, float]:
    """Cross-validated AUC of `fixed_ridge` between two classes alone: value, low, high (bootstrap over patients)."""
    chosen = np.isin(y, pair)
    x, y, patients = x[chosen], (y[chosen] == pair[1]).astype(int), patients[chosen]
    parts = grouped_folds(y, patients, at_most(5, y, patients), seed=seed)
    guess = predictions(fixed_ridge_recipe(), x, y, patients, parts, seed)[0]
    table = with_intervals(y, guess, patients, class_auc_scores(["first", "second"]), seed)
    return tuple(table.loc["AUC second", ["value", "low", "high"]])
