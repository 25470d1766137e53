"""Gene masking: what networks make of patients of whom one gene set alone is known (Smedley et al. 2020, study 04).

Stated ("Methods", figure 1c): the genes of a set keep their values, all others become 0, which is their mean, and the
fully trained network is asked. The published code asks the network of the patients it was trained on, and scores a set
by the areas under the ROC and the precision-recall curve of its answers. Ours: patients whom a network has not seen,
and random sets of the same size as the null.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy.special import logsumexp
from scipy.stats import rankdata
from statsmodels.stats.proportion import confint_proportions_2indep

from gexlib.evaluate import false_discovery_rate, weighted_auc
from gexlib.models.radiogenomic import Course, Fit, ImagingSettings, train_each
from gexlib.plots import PALETTE

GRANULE = 20  # samples are padded to a multiple of this, so that folds of nearly one size share a compilation


def trained_on(
    x: np.ndarray,
    y: np.ndarray,
    parts: Iterable[tuple],
    settings: ImagingSettings,
    labels: np.ndarray | None = None,
    seed: int = 0,
    **training,
) -> tuple[list[Course], list[tuple]]:
    """A network for the training rows of every part, and the parts: the two things that masking and saliency ask for.

    Parameters
    ----------
    x, y : (samples, genes), (samples,) class numbers; rows in no part may hold any class
    parts : (0, train rows, rows to ask about), as `splits.grouped_folds` yields; as published both are all patients
    labels : (samples,) to learn from in place of `y`, such as permuted ones
    training : epochs, batch and balanced of `train_each`
    """
    parts = list(parts)
    fits = [Fit(train, settings, seed + number, y=labels) for number, (_, train, _) in enumerate(parts)]
    return train_each(x, y, fits, **training), parts


def log_odds(logits: np.ndarray, output: int = 0) -> np.ndarray:
    """Log odds of a class, (..., outputs) -> (...): a lone output's logit, else those of `output` against the rest."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return logits[..., output] - logsumexp(np.delete(logits, output, axis=-1), axis=-1)


def masked_odds(
    courses: Sequence[Course], x: np.ndarray, parts: Iterable[tuple], sets: Sequence[np.ndarray], output: int = 0
) -> np.ndarray:
    """Log odds of a class when one set's genes are kept, each sample by the network of the part that tests it.

    Those of a patient of whom no gene is known are subtracted, so that networks of different folds can be ranked
    together; a network has no opinion where this is 0.

    Parameters
    ----------
    courses : one a part
    x : (samples, genes) on the cohort's scale
    parts : (0, train rows, test rows), as `splits.grouped_folds` yields; with test rows that were trained on, the
        result is in-sample, as published
    sets : gene numbers of each set
    output : number of the class, where there are more than two

    Returns
    -------
    (sets, samples), NaN for a sample that no part tests
    """
    found = np.full((len(sets), len(x)), np.nan)
    nothing = [np.empty(0, dtype=int)]
    for course, (_, _, test) in zip(courses, parts, strict=True):
        odds = log_odds(course.masked(_padded(x[test]), [*sets, *nothing]), output)[:, : len(test)]
        found[:, test] = odds[:-1] - odds[-1]
    return found


def saliency_maps(courses: Sequence[Course], x: np.ndarray, parts: Iterable[tuple], output: int = 0) -> np.ndarray:
    """Gradients of a class's logit by z-scored genes, (samples, genes), each sample by the network of its part.

    With their sign, as the paper's text has it; NaN for a sample that no part tests. Parameters as of `masked_odds`.
    """
    maps = np.full(np.shape(x), np.nan, np.float32)
    for course, (_, _, test) in zip(courses, parts, strict=True):
        maps[test] = course.saliency(_padded(x[test]), output)[: len(test)]
    return maps


def _padded(x: np.ndarray) -> np.ndarray:
    return np.pad(x, ((0, -len(x) % GRANULE), (0, 0)), mode="edge")


def map_likeness(courses: Sequence[Course], x: np.ndarray, output: int = 0) -> dict[str, float]:
    """What saliency maps depend on: mean correlations over genes, of two patients in the first network, and of a
    patient in the first two networks.

    Where the first is near 1, as in a network that is nearly linear, a map says nothing of the patient; where the
    second is low, it speaks of the network.

    Parameters
    ----------
    courses : two networks or more
    x : (samples, genes), patients whom both were trained on, or neither
    """
    one, other = (course.saliency(x, output) for course in courses[:2])
    return {
        "two patients, one network": float(np.corrcoef(one)[np.triu_indices(len(x), 1)].mean()),
        "one patient, two networks": float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)])),
    }


def between_networks(indicators: pd.DataFrame, parts: Iterable[tuple], samples: pd.Index) -> pd.Series:
    """Share of each indicator's variance that lies between the networks that were asked, index indicator.

    Networks are dealt to patients at random, so by chance it is (networks - 1) / (patients - 1).

    Parameters
    ----------
    indicators : patients x indicators, as `genesets.indicators` gives them; those of one value have no share
    parts : (0, train rows, test rows) of the cross-validation; patients whom it does not test are left out
    samples : names of all rows
    """
    asked = pd.concat([pd.Series(number, samples[test]) for number, (_, _, test) in enumerate(parts)])
    some = indicators.loc[indicators.index.intersection(asked.index)].astype(float)
    return (some.groupby(asked).transform("mean").var() / some.var()).dropna()


def share_difference(indicator: pd.Series, label: pd.Series) -> pd.DataFrame:
    """Share of patients with an indicator in the positive class minus that in the other, with Newcombe's interval.

    Parameters
    ----------
    indicator, label : True and False, by patient; a patient for whom either is missing is left out

    Returns
    -------
    DataFrame, index measure, columns value, low, high, n, null, as `Record.explanation` takes it
    """
    both = pd.DataFrame({"indicator": indicator, "label": label}).dropna().astype(bool)
    counts = both.groupby("label")["indicator"].agg(["sum", "count"]).reindex([True, False])
    (yes, of_yes), (no, of_no) = counts.to_numpy()
    low, high = confint_proportions_2indep(yes, of_yes, no, of_no, method="newcomb", compare="diff")
    row = {"value": yes / of_yes - no / of_no, "low": low, "high": high, "n": len(both), "null": 0.0}
    return pd.DataFrame([row], ["share in the class minus share outside"])


def mean_auc(y: np.ndarray, odds: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """A `statistics` for `evaluate.with_intervals`: the mean over sets, columns of `odds`, of their masked AUC."""
    return {"AUC": np.mean([weighted_auc(y, one, weights) for one in odds.T], axis=0)}


def set_scores(y: np.ndarray, odds: np.ndarray) -> pd.DataFrame:
    """How well the answers to each set tell the positive class: AUC, and average precision.

    As in the published code the latter is the area of trapezoids under the precision-recall curve; ties share a point
    of the curve. A set that leaves everybody alike has an AUC of one half, and by that rule an average precision of
    (1 + share of positives) / 2.

    Parameters
    ----------
    y, odds : (samples,) 0 and 1; (sets, samples), as `masked_odds` gives it; samples that are NaN are left out

    Returns
    -------
    DataFrame, a row a set, columns AUC, average precision
    """
    known = np.isfinite(odds).all(axis=0)
    positive, odds = np.asarray(y)[known] == 1, odds[:, known]
    cases, controls = positive.sum(), (~positive).sum()
    area = (rankdata(odds, axis=1)[:, positive].sum(axis=1) - cases * (cases + 1) / 2) / (cases * controls)
    precision = [_trapezoids(positive, row) for row in odds]
    return pd.DataFrame({"AUC": area, "average precision": precision})


def _trapezoids(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve by trapezoids, from recall 0 with precision 1."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    hits = np.cumsum(positive[order])[last]
    return float(np.trapezoid(np.r_[1, hits / (last + 1)], np.r_[0, hits / positive.sum()]))


def random_sets(sizes: Iterable[int], genes: int, draws: int, seed: int = 0) -> dict[int, list[np.ndarray]]:
    """`draws` random sets of every size that occurs, genes drawn without replacement: {size: gene numbers of each}.

    The paper has two random sets, of 100 and 200 genes, drawn with replacement.
    """
    rng = np.random.default_rng(seed)
    each = sorted({int(size) for size in sizes})
    return {size: [rng.choice(genes, size, replace=False) for _ in range(draws)] for size in each}


def against_random(score: pd.Series | np.ndarray, sizes: Sequence[int], null: dict[int, np.ndarray]) -> pd.DataFrame:
    """Each set's score beside those of random sets of its size.

    Random sets are random *genes*, in the same patients and the same network: a small p says that these genes say more
    than as many others, not that another network or other patients would say so.

    Parameters
    ----------
    score, sizes : (sets,) scores and numbers of genes; the index of a Series is kept
    null : {size: scores of random sets}

    Returns
    -------
    DataFrame, a row a set, columns mean, low, high (of the random sets, 2.5 to 97.5 %), p (one-sided, (b + 1) / (m + 1)
    with b of m random sets as high), q (Benjamini-Hochberg over the sets)
    """
    rows = []
    for one, size in zip(score, sizes, strict=True):
        chance = np.asarray(null[int(size)])
        p = (1 + np.count_nonzero(chance >= one - 1e-12)) / (1 + len(chance))
        rows.append([chance.mean(), *np.percentile(chance, [2.5, 97.5]), p])
    index = score.index if isinstance(score, pd.Series) else None
    table = pd.DataFrame(rows, index, columns=["mean", "low", "high", "p"])
    return table.assign(q=false_discovery_rate(table["p"]))


def activation_maximum(course: Course, output: int = 0, steps: int = 20, step: float = 0.5) -> np.ndarray:
    """Genes, z-scored, (genes,), towards which the logit of a class rises, from the mean of all genes (a baseline).

    Gradient ascent in steps of one length. Not stated by the paper: where it begins, and how far it goes.
    """
    z, back = np.zeros(len(course.mean)), np.divide(1, course.scale, where=course.scale > 0, out=course.scale * 0)
    for _ in range(steps):
        gradient = course.saliency((course.mean + z * back)[None], output)[0]
        z += step * gradient / max(np.linalg.norm(gradient), 1e-12)
    return z


def draw_sets(table: pd.DataFrame, title: str) -> plt.Figure:
    """Masked AUC of every set, a panel a way of asking, the sets that are right in red.

    Random sets are a grey band, their 95 % averaged over the sizes; those of the very size of a red set a red line.

    Parameters
    ----------
    table : columns way, trait, AUC, low, high (of random sets), right
    """
    ways, traits, rng = table["way"].unique(), list(table["trait"].unique()), np.random.default_rng(0)
    wide = 1.6 + 0.45 * len(traits)
    figure, axes = plt.subplots(1, len(ways), figsize=(wide * len(ways), 3.4), sharey=True, squeeze=False)
    for ax, way in zip(axes[0], ways, strict=True):
        for at, trait in enumerate(traits):
            some = table[(table["way"] == way) & (table["trait"] == trait)]
            low, high = some["low"].mean(), some["high"].mean()
            ax.bar(at, high - low, bottom=low, width=0.8, color="0.9")
            for right, size, colour in ((False, 3, "0.5"), (True, 6, PALETTE[3])):
                sets = some[some["right"] == right]
                places = at + rng.uniform(-0.3, 0.3, len(sets))
                ax.plot(places, sets["AUC"], "o", ms=size, color=colour)
                if right:
                    ax.vlines(places, sets["low"], sets["high"], color=colour, lw=1)
        ax.axhline(0.5, color="0.5", lw=0.8, ls="--")
        ax.set_xticks(range(len(traits)), traits, rotation=35, ha="right", rotation_mode="anchor")
        ax.set(title=f"{title}, {way}", ylabel="AUC of masked predictions" if way == ways[0] else "")
    figure.tight_layout()
    return figure
