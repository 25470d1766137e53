"""How good is a prediction, and how sure can one be: ROC, intervals, paired differences.

Every metric takes sample weights, one row a bootstrap draw, so that a thousand draws cost a few array operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from warnings import catch_warnings

import numpy as np
import pandas as pd
from sklearn.metrics import auc, roc_curve
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from threadpoolctl import ThreadpoolController

from gexlib.cohort import CohortError
from gexlib.prep import with_noise
from gexlib.splits import few_per_class

_thread_pools = lru_cache(maxsize=1)(ThreadpoolController)  # slow to find; the imports above load all there are


def one_thread() -> AbstractContextManager:
    """Linear algebra and trees on one thread: in small fits two wait for one another longer than they work."""
    return _thread_pools().limit(limits=1)


def predictions(
    fit: Callable, x: np.ndarray, y: np.ndarray, patients: np.ndarray, parts: Iterable[tuple], seed: int = 0
) -> np.ndarray:
    """Probabilities for the test samples of every part, from a model fitted on its training samples alone.

    Parameters
    ----------
    fit : a fitting recipe, (x, y, patients, seed) -> predict, which sees training samples only
    x : (samples, genes)
    y : (samples,) class numbers from 0
    patients : (samples,) ids
    parts : (repeat, train rows, test rows), as `splits.grouped_folds` yields

    Returns
    -------
    (repeats, samples, classes); NaN where a sample was in no test part of that repeat

    Raises
    ------
    CohortError : a training part lacks a class
    """
    parts = list(parts)
    _need_every_class(y, parts)
    with one_thread():
        found = [
            model(x[test]) for model, (_, _, test) in zip(_fits(fit, x, y, patients, parts, seed), parts, strict=True)
        ]
    return placed(parts, found, len(y))


def fitted(
    fit: Callable, x: np.ndarray, y: np.ndarray, patients: np.ndarray, parts: Iterable[tuple], seed: int = 0
) -> list[Callable]:
    """The models that `predictions` fits, one a part, each (samples, genes) -> (samples, classes), to ask them more."""
    parts = list(parts)
    _need_every_class(y, parts)
    with one_thread():
        return list(_fits(fit, x, y, patients, parts, seed))


def _fits(fit, x, y, patients, parts, seed) -> Iterator[Callable]:
    """One model a part, fitted when it is asked for."""
    for number, (_, train, _) in enumerate(parts):
        yield fit(x[train], y[train], patients[train], seed + number)


def asked(models: list[Callable], x: np.ndarray, parts: Iterable[tuple]) -> np.ndarray:
    """What the models that `fitted` gave say of the test samples of their parts, as `predictions` gives it."""
    parts = list(parts)
    return placed(parts, [predict(x[test]) for predict, (_, _, test) in zip(models, parts, strict=True)], len(x))


def few_samples_curve(
    ways: Mapping[str, tuple[Callable, np.ndarray]],
    y: np.ndarray,
    patients: np.ndarray,
    sizes: Iterable[int],
    draws: int,
    seed: int = 0,
) -> pd.DataFrame:
    """How good each model is with so many training samples of each class, everyone else tested, over several draws.

    Parameters
    ----------
    ways : {model: (fitting recipe, x)}; all see the same draws
    sizes : training samples of each class

    Returns
    -------
    DataFrame with columns samples of each class, model, metric, value, low, high, n; the metrics of `scores`
    """
    rows = []
    for size in sizes:
        drawn = few_per_class(y, patients, size, draws, seed)
        for model, (recipe, x) in ways.items():
            guess = predictions(recipe, x, y, patients, drawn, seed)
            found = with_intervals(y, guess, patients, scores, seed)
            named = {"samples of each class": size, "model": model}
            rows += [{**named, "metric": metric, **row} for metric, row in found.iterrows()]
    return pd.DataFrame(rows)


def noise_curve(
    models: Mapping[str, list[Callable]], x, y, patients, parts, levels: Iterable[float], seed: int = 0
) -> pd.DataFrame:
    """Accuracy of models trained on clean samples, tested on noisy ones (Mostavi et al. 2020, figure 5).

    Parameters
    ----------
    models : {name: the models that `fitted` gave for these parts}
    x, y, patients, parts : as of `predictions`, one repeat
    levels : of `prep.with_noise`, in means of a gene over the training samples

    Returns
    -------
    DataFrame with columns model, noise, value, low, high, n
    """
    parts, rows = list(parts), []
    for k in levels:
        noisy = [with_noise(x[test], x[train].mean(axis=0), k, [seed, i]) for i, (_, train, test) in enumerate(parts)]
        for name, fits in models.items():
            found = [predict(part) for predict, part in zip(fits, noisy, strict=False)]
            said = placed(parts, found, len(y))
            accuracy = with_intervals(y, said, patients, accuracy_scores, seed).loc["accuracy"]
            rows.append({"model": name, "noise": k, **accuracy})
    return pd.DataFrame(rows)


def _need_every_class(y: np.ndarray, parts: list[tuple]) -> None:
    known = np.unique(y[np.concatenate([np.r_[train, test] for _, train, test in parts])])
    for _, train, _ in parts:
        absent = np.setdiff1d(known, y[train])
        if absent.size:
            raise CohortError(f"a training part lacks class number {absent[0]}; use fewer folds or leave it out.")


def placed(parts: Iterable[tuple], found: Iterable[np.ndarray], samples: int) -> np.ndarray:
    """What models said of the test samples of each part, (test, classes), as `predictions` gives it."""
    parts, found = list(parts), list(found)
    probabilities = np.full((1 + max(repeat for repeat, _, _ in parts), samples, found[0].shape[1]), np.nan)
    for (repeat, _, test), said in zip(parts, found, strict=True):
        if not np.isfinite(said).all():
            raise CohortError("a model gave NaN for tested samples: its training diverged; lower the learning rate.")
        probabilities[repeat, test] = said
    return probabilities


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Class probabilities, (..., outputs) -> (..., classes): a sigmoid for one output, else a softmax."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def among(probabilities: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of the first `classes` classes alone, for a network that has more outputs; they sum to 1 again."""
    return probabilities[:, :classes] / probabilities[:, :classes].sum(axis=1, keepdims=True)


def shuffled(fit: Callable) -> Callable:
    """The recipe `fit` on permuted training labels: what the procedure reports where there is nothing to learn."""

    def fit_shuffled(x, y, patients, seed):
        return fit(x, np.random.default_rng(seed).permutation(y), patients, seed)

    return fit_shuffled


def weighted_auc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for each row of weights; ties count half (Mann-Whitney).

    Parameters
    ----------
    positive, score : (samples,)
    weights : (draws, samples), not negative

    Returns
    -------
    (draws,); NaN where a draw holds one class only
    """
    order = np.argsort(score, kind="stable")
    score, positive, weights = score[order], np.asarray(positive, bool)[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    cases = np.add.reduceat(weights * positive, starts, axis=1)
    controls = np.add.reduceat(weights * ~positive, starts, axis=1)
    below = np.cumsum(controls, axis=1) - controls / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (cases * below).sum(axis=1) / (cases.sum(axis=1) * controls.sum(axis=1))


def class_aucs(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """One-versus-rest AUC of each class, (draws, classes); `y` holds class numbers."""
    weights = np.ones((1, len(y))) if weights is None else weights
    columns = [weighted_auc(y == k, probabilities[:, k], weights) for k in range(probabilities.shape[1])]
    return np.stack(columns, axis=1)


def scores(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The four headline metrics, each (draws,).

    Macro AUC is the mean of the one-versus-rest AUCs; micro AUC pools all (sample, class) pairs. Balanced accuracy is
    the mean recall of the classes that are present.
    """
    classes = probabilities.shape[1]
    weights = np.ones((1, len(y))) if weights is None else weights
    truth = np.eye(classes, dtype=bool)[y]
    right = (probabilities.argmax(axis=1) == y).astype(float)
    with np.errstate(invalid="ignore"):
        recalls = (weights * right) @ truth / (weights @ truth)
    return {
        "accuracy": weights @ right / weights.sum(axis=1),
        "balanced accuracy": _mean_of_known(recalls),
        "macro AUC": _mean_of_known(class_aucs(y, probabilities, weights)),
        "micro AUC": weighted_auc(truth.ravel(), probabilities.ravel(), np.repeat(weights, classes, axis=1)),
    }


def accuracy_scores(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and balanced accuracy, each (draws,): quick with many classes and thousands of samples."""
    truth = np.eye(probabilities.shape[1])[y]
    right = (probabilities.argmax(axis=1) == y).astype(float)
    with np.errstate(invalid="ignore"):
        recalls = (weights * right) @ truth / (weights @ truth)
    return {"accuracy": weights @ right / weights.sum(axis=1), "balanced accuracy": _mean_of_known(recalls)}


def macro_auc(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """A `statistics` for `with_intervals`: the macro AUC alone, where pooling thousands of pairs would take long."""
    return {"macro AUC": _mean_of_known(class_aucs(y, probabilities, weights))}


def cross_entropy(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """A `statistics` for `with_intervals`: mean cross-entropy of the true classes, natural logarithm."""
    losses = -np.log(np.clip(probabilities[np.arange(len(y)), y], 1e-12, None))
    return {"cross-entropy": weights @ losses / weights.sum(axis=1)}


def class_rates(classes: list[str]) -> Callable:
    """A `statistics` for `with_intervals`: ``precision <class>`` (NaN where none is called) and ``recall <class>``."""

    def statistics(y, probabilities, weights):
        truth, called = np.eye(len(classes))[y], np.eye(len(classes))[probabilities.argmax(axis=1)]
        with np.errstate(invalid="ignore"):
            hits = weights @ (truth * called)
            rates = {"precision": hits / (weights @ called), "recall": hits / (weights @ truth)}
        return {f"{rate} {name}": values[:, k] for rate, values in rates.items() for k, name in enumerate(classes)}

    return statistics


def mean_precision_of(classes: list[str]) -> Callable:
    """A `statistics` for `with_intervals`: the mean of the classes' precisions, over those that are called at all."""

    def statistics(y, probabilities, weights):
        rates = class_rates(classes)(y, probabilities, weights)
        return {"mean precision": _mean_of_known(np.stack([rates[f"precision {c}"] for c in classes], axis=1))}

    return statistics


def confusion(y: np.ndarray, probabilities: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Samples by true class (rows) and predicted class (columns); averaged over repeats where there are several."""
    repeats = probabilities[None] if probabilities.ndim == 2 else probabilities
    calls = np.zeros((len(names), len(names)))
    np.add.at(calls, (np.tile(y, len(repeats)), repeats.argmax(axis=2).ravel()), 1 / len(repeats))
    return pd.DataFrame(calls, pd.Index(names, name="true"), pd.Index(names, name="predicted"))


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean of each row over its finite values; NaN where there is none."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)


def patient_draws(patients: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Bootstrap weights (draws, samples): patients drawn with replacement, all samples of a patient together."""
    _, number = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    n = number.max() + 1
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)[:, number].astype(float)


def class_auc_scores(classes: list[str]) -> Callable:
    """A `statistics` for `with_intervals`: the one-versus-rest AUC of each class, named ``AUC <class>``."""

    def statistics(y, probabilities, weights):
        return {
            f"AUC {name}": area for name, area in zip(classes, class_aucs(y, probabilities, weights).T, strict=True)
        }

    return statistics


def class_margin(ahead: list[int], behind: list[int]) -> Callable:
    """A `statistics` for `with_intervals`: the lowest AUC of the classes `ahead` minus the highest of `behind`."""

    def statistics(y, probabilities, weights):
        aucs = class_aucs(y, probabilities, weights)
        return {"margin": aucs[:, ahead].min(axis=1) - aucs[:, behind].max(axis=1)}

    return statistics


def mean_class_auc(chosen: list[int]) -> Callable:
    """A `statistics` for `with_intervals`: the mean one-versus-rest AUC of some of the classes."""
    return lambda y, probabilities, weights: {
        "mean AUC": _mean_of_known(class_aucs(y, probabilities, weights)[:, chosen])
    }


def with_intervals(
    y: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, statistics: Callable = scores, seed: int = 0
) -> pd.DataFrame:
    """Metrics with 95 % intervals from 1,000 bootstrap draws of patients.

    Parameters
    ----------
    y : (samples,) class numbers
    probabilities : (samples, classes), or (repeats, samples, classes) of repeated cross-validation, whose metric is
        averaged over repeats within each draw. The interval holds the luck of who was in the test set, not that of
        another training set.
    patients : (samples,) ids that are drawn together
    statistics : (y, probabilities, weights) -> {metric: (draws,)}, or a list of them, one a repeat

    Returns
    -------
    DataFrame, index metric, columns value, low, high, n (patients)
    """
    drawn = _value_and_draws(y, probabilities, patients, statistics, seed)
    return _summary(drawn, _seen(patients, probabilities))


def paired_difference(
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: np.ndarray,
    statistics: Callable = scores,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics of `first` minus those of `second` on the same patients, with intervals from the same draws."""
    one = _value_and_draws(y, first, patients, statistics, seed)
    other = _value_and_draws(y, second, patients, statistics, seed)
    return _summary({metric: one[metric] - other[metric] for metric in one}, _seen(patients, first))


def beside_one(
    y: np.ndarray,
    said: Mapping[str, np.ndarray],
    one: str,
    patients: np.ndarray,
    statistics: Callable = scores,
    seed: int = 0,
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """`with_intervals` of several models, and `paired_difference` of `one` minus each other, from the same draws.

    Each model is drawn once for both, which for many classes and samples saves most of the time.

    Returns
    -------
    {model: metrics}, {other model: metrics of `one` minus its own}
    """
    drawn = {name: _value_and_draws(y, guess, patients, statistics, seed) for name, guess in said.items()}
    alone = {name: _summary(found, _seen(patients, said[name])) for name, found in drawn.items()}
    gaps = {
        name: _summary({m: drawn[one][m] - found[m] for m in found}, _seen(patients, said[one]))
        for name, found in drawn.items()
        if name != one
    }
    return alone, gaps


def _seen(patients: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Patients with a prediction in any repeat."""
    known = np.isfinite(probabilities).all(axis=-1)
    return np.asarray(patients)[known if known.ndim == 1 else known.any(axis=0)]


def within_folds(parts: Iterable[tuple], samples: int, positive: int | None = 1) -> list[Callable]:
    """A `statistics` for `with_intervals`: the AUC of one class in each test fold, averaged over the folds of a repeat.

    This is how studies that print the mean over folds count; models of different folds are never ranked together. With
    `positive` None it is the mean over the classes.
    """
    parts = list(parts)
    folds = np.full((1 + max(repeat for repeat, _, _ in parts), samples), -1)
    for number, (repeat, _, test) in enumerate(parts):
        folds[repeat, test] = number

    def of_repeat(fold):
        def statistics(y, probabilities, weights):
            tested = [np.flatnonzero(fold == k) for k in np.unique(fold[fold >= 0])]
            each = [class_aucs(y[t], probabilities[t], weights[:, t]) for t in tested]
            aucs = [_mean_of_known(found) if positive is None else found[:, positive] for found in each]
            return {"AUC": _mean_of_known(np.stack(aucs, axis=1))}

        return statistics

    return [of_repeat(fold) for fold in folds]


def mean_fold_auc(y: np.ndarray, probabilities: np.ndarray, parts: Iterable[tuple]) -> float:
    """AUC within each test fold, averaged over classes and folds; probabilities as `predictions` gives them."""
    each = [class_aucs(y[test], probabilities[repeat, test])[0] for repeat, _, test in parts]
    return float(np.nanmean(each))


def fold_aucs(y: np.ndarray, probabilities: np.ndarray, parts: Iterable[tuple], positive: int = 1) -> pd.DataFrame:
    """AUC of one class in every test fold: columns repeat, auc; for the repeats that `probabilities` holds."""
    rows = [(repeat, test) for repeat, _, test in parts if repeat < len(probabilities)]
    aucs = [class_aucs(y[test], probabilities[repeat, test])[0, positive] for repeat, test in rows]
    return pd.DataFrame({"repeat": [repeat for repeat, _ in rows], "auc": aucs})


def _value_and_draws(y, probabilities, patients, statistics, seed, draws=1000) -> dict[str, np.ndarray]:
    """Each metric's value on all samples, then on each bootstrap draw: (1 + draws,)."""
    y, repeats = np.asarray(y), np.asarray(probabilities)
    repeats = repeats[None] if repeats.ndim == 2 else repeats
    weights = np.vstack([np.ones((1, len(y))), patient_draws(patients, draws, seed)])
    each = statistics if isinstance(statistics, list) else [statistics] * len(repeats)
    known = np.isfinite(repeats).all(axis=2)  # a sample that a repeat does not test weighs nothing there
    per_repeat = [
        of_repeat(y, np.nan_to_num(p), weights * k) for of_repeat, p, k in zip(each, repeats, known, strict=True)
    ]
    return {metric: np.mean([found[metric] for found in per_repeat], axis=0) for metric in per_repeat[0]}


def _summary(drawn, patients) -> pd.DataFrame:
    n = len(np.unique(np.asarray(patients).astype(str)))
    with catch_warnings(category=RuntimeWarning, action="ignore"):  # a metric that is NaN in every draw stays NaN
        rows = {metric: [values[0], *np.nanpercentile(values[1:], [2.5, 97.5]), n] for metric, values in drawn.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "n"]).astype({"n": int})


def mean_with_interval(values: np.ndarray, seed: int = 0) -> pd.Series:
    """The mean over units, such as classes, with its 95 % interval from drawing units: value, low, high, n."""
    values = np.asarray(values, float)
    drawn = patient_draws(np.arange(len(values)), 1000, seed) @ values / len(values)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return pd.Series({"value": values.mean(), "low": low, "high": high, "n": len(values)})


def proportion(successes: int, n: int) -> tuple[float, float, float]:
    """A share with its 95 % Wilson interval: value, low, high."""
    low, high = proportion_confint(successes, n, method="wilson")
    return successes / n, float(low), float(high)


def roc_curves(y: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Points of the one-versus-rest, micro and macro ROC curves (study 01, figure 3).

    The macro curve averages the classes' sensitivities over the union of their false positive rates, as the worked
    example of scikit-learn does and as the paper's figure suggests. Joining the averaged steps by straight lines gives
    it an area a little above the mean of the classes' AUCs on a small test set.

    Returns
    -------
    DataFrame with columns curve, fpr, tpr, auc; the areas of the class and micro curves are exact
    """
    truth = np.eye(len(classes), dtype=int)[y]
    curves = {name: roc_curve(truth[:, k], probabilities[:, k])[:2] for k, name in enumerate(classes)}
    grid = np.unique(np.concatenate([fpr for fpr, _ in curves.values()]))
    macro = np.mean([np.interp(grid, fpr, tpr) for fpr, tpr in curves.values()], axis=0)
    curves["micro"] = roc_curve(truth.ravel(), probabilities.ravel())[:2]
    curves["macro"] = (grid, macro)
    points = [
        pd.DataFrame({"curve": name, "fpr": fpr, "tpr": tpr, "auc": auc(fpr, tpr)})
        for name, (fpr, tpr) in curves.items()
    ]
    return pd.concat(points, ignore_index=True)


def false_discovery_rate(p_values: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values."""
    return multipletests(p_values, method="fdr_bh")[1]
