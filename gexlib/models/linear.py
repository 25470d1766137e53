"""Linear baselines: what a regularised linear model makes of the same genes and the same folds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from gexlib.splits import grouped_folds

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C on z-scored genes; smaller is stronger


def ridge(inner_folds, penalties=PENALTIES) -> GridSearchCV:
    """Multinomial logistic regression with an L2 penalty, its strength chosen by log-loss on `inner_folds`.

    The genes are z-scored and rotated onto all principal axes of the training samples first. A rotation leaves an L2
    penalty as it is, so this is exact, and with fewer samples than genes it is many times faster.

    Parameters
    ----------
    inner_folds : scikit-learn cv, or (train, test) index pairs within the samples given to `fit`
    penalties : values of C to choose from

    Returns
    -------
    GridSearchCV over the pipeline scaler -> rotation -> regression; refitted on all samples given to `fit`
    """
    model = make_pipeline(StandardScaler(), PCA(svd_solver="full"), LogisticRegression(max_iter=2000, tol=1e-3))
    grid = {"logisticregression__C": list(penalties)}
    return GridSearchCV(model, grid, cv=inner_folds, scoring="neg_log_loss")


def ridge_recipe(inner_folds: int = 3) -> Callable:
    """A fitting recipe (x, y, patients, seed) -> predict: `ridge` with inner folds by patient."""

    def fit(x, y, patients, seed):
        inner = [(train, test) for _, train, test in grouped_folds(y, patients, inner_folds, seed=seed)]
        return ridge(inner).fit(x, y).predict_proba

    return fit


def class_shares_recipe() -> Callable:
    """A fitting recipe that looks at no gene: the majority class, with the training class shares as probabilities."""
    return lambda x, y, patients, seed: DummyClassifier(strategy="prior").fit(x, y).predict_proba


def gene_coefficients(model: GridSearchCV | Pipeline) -> np.ndarray:
    """Coefficients of a fitted `ridge` on the z-scored genes, classes x genes."""
    pipeline = getattr(model, "best_estimator_", model)
    return pipeline[-1].coef_ @ pipeline[1].components_
