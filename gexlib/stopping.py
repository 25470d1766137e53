"""Which epoch of a training is scored, and on whose samples that is decided (Smedley et al. 2020, study 04)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from gexlib.evaluate import class_aucs, one_thread, placed, probabilities_of
from gexlib.models.radiogenomic import Autoencoder, Course, Fit, ImagingSettings, train_each
from gexlib.splits import at_most, grouped_folds


@dataclass(frozen=True)
class CrossValidated:
    """What the networks of a cross-validation said.

    Attributes
    ----------
    parts : (0, train rows, test rows) of each fold
    probabilities : (1, samples, classes), each sample by the network of its fold; NaN for one that is in no test part
    curves : (folds, epochs) test AUC after each epoch
    epochs : (folds,) the epoch, from 0, that was scored
    courses : the trainings scored, a fold each
    chosen : the name of the setting of each fold
    """

    parts: list[tuple]
    probabilities: np.ndarray
    curves: np.ndarray
    epochs: np.ndarray
    courses: list[Course]
    chosen: list[str]

    def last(self) -> np.ndarray:
        """As `probabilities`, with every fold at its last epoch: nothing was chosen, and nothing can be inflated."""
        said = [c.probabilities(-1)[test] for c, (_, _, test) in zip(self.courses, self.parts, strict=True)]
        return placed(self.parts, said, self.probabilities.shape[1])


def auc_by_epoch(y: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Area under the ROC curve after each epoch, (epochs,); of several classes the mean, one against the rest.

    Parameters
    ----------
    y, logits : (samples,) class numbers; (epochs, samples, outputs)
    """
    columns = [(y == 1, logits[..., 0])] if logits.shape[-1] == 1 else []
    columns = columns or [(y == k, p) for k, p in enumerate(np.moveaxis(probabilities_of(logits), -1, 0)) if k in y]
    areas = []
    for positive, score in columns:
        cases, ranks = positive.sum(), rankdata(score, axis=1)[:, positive].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            areas.append((ranks - cases * (cases + 1) / 2) / (cases * (len(y) - cases)))
    return np.mean(areas, axis=0)


def at_the_best_epoch(
    x: np.ndarray,
    y: np.ndarray,
    parts: Iterable[tuple],
    candidates: Mapping[str, ImagingSettings],
    encoder: Autoencoder | None = None,
    *,
    seed: int = 0,
    **training,
) -> CrossValidated:
    """As published: every fold is scored at the epoch of its highest *test* AUC, and settings are chosen on that score.

    Parameters
    ----------
    x, y : (samples, genes), (samples,) class numbers
    parts : (0, train rows, test rows), as `splits.grouped_folds` yields; samples in none of them are not looked at
    candidates : settings by name; the one with the highest mean over folds is reported
    encoder : for settings that take layers
    training : epochs, batch and balanced of `train_each`
    """
    parts = list(parts)
    fits = [
        Fit(train, s, seed + number, encoder=encoder if s.taken else None)
        for s in candidates.values()
        for number, (_, train, _) in enumerate(parts)
    ]
    courses = train_each(x, y, fits, **training)
    tests = [test for _, _, test in parts] * len(candidates)
    curves = np.array([auc_by_epoch(y[test], c.logits[:, test]) for c, test in zip(courses, tests, strict=True)])
    by_setting = curves.reshape(len(candidates), len(parts), -1)
    best = int(np.argmax(np.nanmax(by_setting, axis=2).mean(axis=1)))
    own = courses[best * len(parts) : (best + 1) * len(parts)]
    epochs = np.nan_to_num(by_setting[best], nan=-1).argmax(axis=1)
    return _validated(own, parts, by_setting[best], epochs, [list(candidates)[best]] * len(parts), len(y))


def at_the_inner_best(
    x: np.ndarray,
    y: np.ndarray,
    patients: np.ndarray,
    parts: Iterable[tuple],
    candidates: Mapping[str, ImagingSettings],
    encoder: Autoencoder | None = None,
    *,
    inner: int = 3,
    labels: np.ndarray | None = None,
    seed: int = 0,
    **training,
) -> CrossValidated:
    """Corrected: inner folds of the training patients decide, by their mean AUC, the setting and the epoch of a fold.

    The setting is then trained on the whole training part for as many epochs.

    Parameters
    ----------
    x, y, parts, candidates, encoder, training : as of `at_the_best_epoch`
    patients : (samples,) ids; a patient is on one side of an inner fold
    inner : inner folds, fewer where a class is rarer
    labels : (samples,) to learn from in place of `y`, such as permuted ones; tests are always of `y`
    """
    parts, fits, asks, learned = list(parts), [], [], y if labels is None else labels
    for number, (_, train, _) in enumerate(parts):
        folds = at_most(inner, learned[train], patients[train])
        within = list(grouped_folds(learned[train], patients[train], folds, seed=seed + number))
        for s in candidates.values():
            taken = encoder if s.taken else None
            fits += [Fit(train[fit], s, seed + number, None, labels, taken) for _, fit, _ in within]
            asks.append((number, [train[ask] for _, _, ask in within]))
    courses, best = iter(train_each(x, y, fits, **training)), {}
    for (number, rows), name in zip(asks, list(candidates) * len(parts), strict=True):
        mean = np.mean([auc_by_epoch(learned[ask], next(courses).logits[:, ask]) for ask in rows], axis=0)
        best[number] = max(best.get(number, (-1.0, 0, "")), (float(mean.max()), int(mean.argmax()), name))
    again = []
    for number, (_, train, _) in enumerate(parts):
        _, epoch, name = best[number]
        s = candidates[name]
        again.append(Fit(train, s, seed + number, epoch, labels, encoder if s.taken else None))
    own = train_each(x, y, again, **training)
    curves = np.array([auc_by_epoch(y[test], c.logits[:, test]) for c, (_, _, test) in zip(own, parts, strict=True)])
    epochs = np.array([course.kept for course in own])
    return _validated(own, parts, curves, epochs, [best[k][2] for k in range(len(parts))], len(y))


def _validated(courses, parts, curves, epochs, chosen, samples) -> CrossValidated:
    said = [c.probabilities(e)[test] for c, e, (_, _, test) in zip(courses, epochs, parts, strict=True)]
    return CrossValidated(parts, placed(parts, said, samples), curves, epochs, courses, chosen)


def bootstrap_table(
    x: np.ndarray,
    y: np.ndarray,
    parts: Iterable[tuple],
    settings: ImagingSettings,
    encoder: Autoencoder | None,
    recipes: Mapping[str, Callable],
    seed: int = 0,
    **training,
) -> pd.DataFrame:
    """AUC of every model in every bootstrap draw, the mean over its folds (figure 2b of the paper).

    Parameters
    ----------
    parts : as `splits.bootstrapped` yields
    recipes : fitting recipes of the other models, at settings that are fixed
    training : epochs and batch of `train_each`

    Returns
    -------
    DataFrame with columns draw, model, AUC; the network stands there twice: at the epoch that is best in the test rows,
    as published, and at the one that is best in the training rows that were not drawn
    """
    parts = list(parts)
    taken = encoder if settings.taken else None
    fits = [Fit(train, settings, seed + i, encoder=taken) for i, (_, train, _, _) in enumerate(parts)]
    rows = []
    for number, (course, (draw, train, test, left)) in enumerate(
        zip(train_each(x, y, fits, **training), parts, strict=True)
    ):
        curve, other = (auc_by_epoch(y[asked], course.logits[:, asked]) for asked in (test, left))
        rows += [(draw, "network, best epoch", curve.max()), (draw, "network", curve[other.argmax()])]
        for name, recipe in recipes.items():
            with one_thread():
                said = recipe(x[train], y[train], train, seed + number)(x[test])
            rows.append((draw, name, class_aucs(y[test], said)[0].mean()))
    table = pd.DataFrame(rows, columns=["draw", "model", "AUC"])
    return table.groupby(["draw", "model"], sort=False, as_index=False)["AUC"].mean()


def bootstrap_differences(table: pd.DataFrame) -> pd.DataFrame:
    """Network minus every other model, by draw: columns way, model, value (mean), low, high (95 % of the draws)."""
    wide, rows = table.pivot(index="draw", columns="model", values="AUC"), []
    ways = ("network, best epoch", "network")
    for way in ways:
        for model in wide.columns.drop(list(ways)):
            gap = wide[way] - wide[model]
            rows.append((way, model, gap.mean(), *np.percentile(gap, [2.5, 97.5])))
    return pd.DataFrame(rows, columns=["way", "model", "value", "low", "high"])


def together(traits: Mapping[str, list[tuple]], y: Mapping[str, np.ndarray], patients: np.ndarray, **said):
    """Several traits as one, for an AUC that is the mean over all their folds, with an interval over patients.

    Parameters
    ----------
    traits, y : folds and labels, (samples,), of each trait
    patients : (samples,) ids
    said : {model: {trait: (1, samples, classes)}}

    Returns
    -------
    y, {model: (1, traits x samples, classes)}, patients and parts, for `evaluate.within_folds`
    """
    n = len(patients)
    parts = [
        (repeat, train + n * place, test + n * place)
        for place, folds in enumerate(traits.values())
        for repeat, train, test in folds
    ]
    guesses = {model: np.concatenate([by_trait[t] for t in traits], axis=1) for model, by_trait in said.items()}
    return np.concatenate([y[t] for t in traits]), guesses, np.tile(patients, len(traits)), parts
