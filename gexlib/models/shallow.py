"""The models that radiogenomic networks are compared with, on the published grids (Smedley et al. 2020, study 04)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from gexlib.evaluate import class_aucs, one_thread, predictions, probabilities_of
from gexlib.splits import at_most, grouped_folds

FAMILIES = {"boosted trees": "trees", "random forest": "trees", "SVM": "kernel", "logistic regression": "linear"}


def comparison_models(points: int, seed: int = 0, samples: int = 255) -> dict[str, tuple[Pipeline, dict[str, list]]]:
    """The four models of figure 2, each with its grid, thinned to `points` values an axis.

    Published: z-scored genes and balanced classes throughout. Random forest: {sqrt, log2, all} genes x {Gini, entropy}
    x 50 to 2,000 trees. SVM: C from 1e-6 to 1e6 x {linear, poly, rbf, sigmoid}. Logistic regression: C from 1e-3 to
    1e3, and an L2 penalty, since the L1 penalty that the code names is never passed on. Boosted trees: xgboost with
    depth 1 to 4, 50 to 950 trees, rate 0.01 to 0.46; here scikit-learn's, which bin the genes, and 400 trees at most.

    Parameters
    ----------
    points : values of an axis that are tried, the most usual first; of the quick models (SVM, regression) one more
    seed : of the trees
    samples : to train on, at most; more bins of a gene than samples are never filled, and cost time

    Returns
    -------
    {name: (pipeline, grid)}
    """
    trees = HistGradientBoostingClassifier(
        early_stopping=False, class_weight="balanced", max_bins=min(samples, 255), random_state=seed
    )
    forest = RandomForestClassifier(class_weight="balanced", random_state=seed)
    logit = LogisticRegression(class_weight="balanced", solver="newton-cholesky", tol=1e-3)
    grids = {
        "boosted trees": (trees, {
            "max_depth": [2, 1, 3, 4], "max_iter": [50, 200, 100, 400], "learning_rate": [0.11, 0.31, 0.01, 0.46],
        }),
        "random forest": (forest, {
            "max_features": ["sqrt", "log2", None], "criterion": ["gini", "entropy"],
            "n_estimators": [50, 500, 100, 1000, 2000],
        }),
        "SVM": (SVC(class_weight="balanced"), {
            "C": [1.0, 1e-2, 1e2, 1e-4, 1e4, 1e-6, 1e6], "kernel": ["rbf", "linear", "sigmoid", "poly"],
        }),
        "logistic regression": (logit, {"C": [1e-3, 1e-1, 1e-2, 1.0, 10.0, 1e2, 1e3]}),
    }  # fmt: skip
    before = {
        "SVM": [StandardScaler()],
        "logistic regression": [StandardScaler(), PCA(svd_solver="full")],  # a rotation, which an L2 penalty ignores
    }
    models = {}
    for name, (model, grid) in grids.items():
        pipeline = make_pipeline(*before.get(name, []), model)  # trees ask for no scale
        step, tried = pipeline.steps[-1][0], points + (name in before)
        models[name] = pipeline, {f"{step}__{key}": values[:tried] for key, values in grid.items()}
    return models


def fixed_recipe(model: Pipeline, setting: Mapping[str, object]) -> Callable:
    """A fitting recipe at one point of the grid; an SVM's decision values are squeezed into probabilities.

    On one thread: in so few patients two spend their time in waiting for one another, ten times as long on a busy
    machine.
    """

    def fit(x, y, patients, seed):
        with one_thread():
            fitted = clone(model).set_params(**setting).fit(x, y)
        if hasattr(fitted, "predict_proba"):
            return fitted.predict_proba
        return lambda new: probabilities_of(fitted.decision_function(new).reshape(len(new), -1))

    return fit


def nested_recipe(model: Pipeline, grid: Mapping[str, list], inner_folds: int = 3) -> Callable:
    """A fitting recipe that chooses its point of the grid by AUC on inner folds of the training samples, and refits."""
    recipes = [fixed_recipe(model, setting) for setting in ParameterGrid(grid)]

    def fit(x, y, patients, seed):
        best = recipes[0]
        if len(recipes) > 1:
            parts = list(grouped_folds(y, patients, at_most(inner_folds, y, patients), seed=seed))
            inner = [class_aucs(y, predictions(r, x, y, patients, parts, seed)[0]).mean() for r in recipes]
            best = recipes[int(np.argmax(inner))]
        return best(x, y, patients, seed)

    return fit
