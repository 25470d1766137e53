"""What a network looked at, and whether that is where the signal was planted."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from gexlib.evaluate import false_discovery_rate, patient_draws, proportion, weighted_auc


def class_gradients(model, x: np.ndarray, output: int, batch: int = 256) -> np.ndarray:
    """Gradient of the logit of one class by every gene, sample by sample, in test mode.

    Parameters
    ----------
    model : keras.Model, (samples, genes) -> (samples, classes) logits
    x : (samples, genes), on the scale the network was trained on
    output : class number
    batch : samples differentiated at once, which bounds memory

    Returns
    -------
    (samples, genes): change of the logit per unit of a gene
    """
    parts = [_gradient(model, x[i : i + batch], output) for i in range(0, len(x), batch)]
    return np.concatenate(parts)


def _gradient(model, x: np.ndarray, output: int) -> np.ndarray:
    from gexlib.training import keras

    x = keras.ops.convert_to_tensor(x, dtype="float32")
    if keras.backend.backend() == "jax":
        import jax

        weights = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]
        total = jax.grad(lambda x: model.stateless_call(weights, state, x, training=False)[0][:, output].sum())
        return np.asarray(total(x))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        logit = model(x, training=False)[:, output]
    return tape.gradient(logit, x).numpy()


def recovery(score: np.ndarray, planted: np.ndarray, k: int = 50, seed: int = 0) -> pd.DataFrame:
    """How well a ranking of genes finds the planted ones.

    Parameters
    ----------
    score : (genes,), larger is more important
    planted : (genes,) bool
    k : genes at the top that are looked at

    Returns
    -------
    DataFrame, index measure, columns value, low, high, n, null: precision at k with its Wilson interval and the share
    of planted genes as null; AUC of recovery with a bootstrap interval over genes and 0.5 as null
    """
    score, planted = np.asarray(score, float), np.asarray(planted, bool)
    top = np.argsort(-score, kind="stable")[:k]
    weights = np.vstack([np.ones((1, len(score))), patient_draws(np.arange(len(score)), 500, seed)])
    area = weighted_auc(planted, score, weights)
    low, high = np.nanpercentile(area[1:], [2.5, 97.5])
    rows = {
        f"precision at {k}": [*proportion(int(planted[top].sum()), len(top)), len(top), planted.mean()],
        "AUC of recovery": [area[0], low, high, len(score), 0.5],
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "n", "null"]).astype(
        {"n": int}
    )


def selection_stability(selected: np.ndarray) -> pd.Series:
    """How alike the gene sets of several fits are, corrected for chance, whatever their sizes (Nogueira et al. 2018).

    1 where every fit selects the same genes, about 0 where each draws at random: one minus the genes' mean variance of
    selection over that of random draws of the same mean size (JMLR 18(174), definition 4 and corollary 9). Its interval
    takes the fits for independent; those of overlapping training sets, as of cross-validation, are not, and it is then
    too narrow for new patients.

    Parameters
    ----------
    selected : (fits, genes) bool

    Returns
    -------
    Series value, low, high (95 %), n (fits)

    Raises
    ------
    ValueError : fewer than two fits, or all of them select every gene or none, which leaves the index undefined
    """
    selected = np.asarray(selected, float)
    if selected.ndim != 2 or len(selected) < 2:
        raise ValueError(f"selected has shape {selected.shape}; expected (fits, genes) of at least two fits.")
    fits, frequency, sizes = len(selected), selected.mean(axis=0), selected.mean(axis=1)
    size = frequency.mean()
    if size in (0, 1):
        every = "no gene" if size == 0 else "every gene"
        raise ValueError(f"all {fits} fits select {every}; the index is undefined: fit with another penalty.")
    chance = size * (1 - size)
    value = 1 - fits / (fits - 1) * np.mean(frequency * (1 - frequency)) / chance
    pull = selected @ frequency / selected.shape[1] - sizes * size
    pull = (pull + value / 2 * (2 * sizes * size - sizes - size + 1)) / chance
    half = 1.96 * 2 * pull.std() / np.sqrt(fits)
    return pd.Series({"value": value, "low": value - half, "high": min(value + half, 1.0), "n": fits})


def one_vs_rest_t(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Welch's t of every gene for each class against all others, (classes, genes); 0 for a gene that never varies."""
    return np.stack([_welch(x[y == k], x[y != k])[0] for k in range(y.max() + 1)])


def genes_per_class(x: np.ndarray, y: np.ndarray) -> list[int]:
    """For each class against all others: genes that differ by Welch's t-test at a false discovery rate of 5 %."""
    return [int((false_discovery_rate(_welch(x[y == k], x[y != k])[1]) < 0.05).sum()) for k in range(y.max() + 1)]


def compare_pairs(x: np.ndarray, y: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """For each pair of classes: samples, and the genes that differ by Welch's t-test at a false discovery rate of 5 %.

    Parameters
    ----------
    x : (samples, genes)
    y : (samples,) class numbers
    classes : their names

    Returns
    -------
    DataFrame with columns first, second, n, genes, share (of all genes)
    """
    rows = []
    for i, j in combinations(range(len(classes)), 2):
        genes = int((false_discovery_rate(_welch(x[y == i], x[y == j])[1]) < 0.05).sum())
        n = int(((y == i) | (y == j)).sum())
        rows.append({"first": classes[i], "second": classes[j], "n": n, "genes": genes, "share": genes / x.shape[1]})
    return pd.DataFrame(rows)


def _welch(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    varies = np.vstack([first, second]).std(axis=0) > 0
    t, p = np.zeros(first.shape[1]), np.ones(first.shape[1])
    t[varies], p[varies] = ttest_ind(first[:, varies].astype(float), second[:, varies].astype(float), equal_var=False)
    return np.nan_to_num(t), np.nan_to_num(p, nan=1.0)
