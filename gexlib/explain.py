"""What a network looked at, and whether that is where the signal was planted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import combinations
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.stats import norm, ttest_ind

from gexlib.evaluate import false_discovery_rate, mean_with_interval, patient_draws, proportion, weighted_auc

MODIFIERS = ("absolute", "relu")
PATH_STEPS = 16  # points of the path of integrated gradients


def class_gradients(
    model, x: np.ndarray, output: int | np.ndarray, *, guided: bool = False, batch: int = 256
) -> np.ndarray:
    """Gradient of the logit of a class by every gene, sample by sample, in test mode.

    Parameters
    ----------
    model : keras.Model, (samples, genes) -> (samples, classes) logits
    x : (samples, genes), on the scale the network was trained on
    output : class number, one for all samples or (samples,)
    guided : stop what is negative on its way back at every rectifier (guided backpropagation)
    batch : samples differentiated at once, which bounds memory

    Returns
    -------
    (samples, genes): change of the logit per unit of a gene
    """
    chosen = np.broadcast_to(output, len(x))
    gradient = _program(model, guided, None)
    parts = [gradient(part, outputs)[:n] for part, outputs, n in _batches(model, x, chosen, batch)]
    return np.concatenate(parts)


def saliency_sums(
    model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    guided: bool = True,
    modifier: str = "absolute",
    baseline: np.ndarray | None = None,
    genes: np.ndarray | None = None,
    batch: int = 1000,
) -> np.ndarray:
    """Saliency maps of samples for the logit of their own class, added up by class (Mostavi et al. 2020, section 2.6).

    Each sample's map is scaled from its own smallest to its own largest value, 0 to 1, before it is added, as the
    library of the paper does. The sums of the test samples of several folds, divided by the number of samples of each
    class, are the paper's gene-effect scores.

    Parameters
    ----------
    model : keras.Model, (samples, genes) -> (samples, classes) logits
    x, y : (samples, genes) and (samples,) class numbers
    guided : guided saliency, as published; else the plain gradient
    modifier : "absolute", the default of the paper's library, or "relu", the positive part, as its text says
    baseline : (genes,), for integrated gradients: the gradient is averaged over the straight path from here to the
        sample, and multiplied by the way
    genes : (genes,) bool, those that the network was given; others, masked in its fold, get 0
    batch : samples differentiated at once, which bounds memory

    Returns
    -------
    (classes, genes)

    Raises
    ------
    ValueError : an unknown modifier
    """
    if modifier not in MODIFIERS:
        raise ValueError(f"modifier is {modifier!r}; expected one of {', '.join(MODIFIERS)}.")
    given = np.ones(x.shape[1], np.float32) if genes is None else np.asarray(genes, np.float32)
    start = None if baseline is None else np.asarray(baseline, np.float32)
    add_up = _program(model, guided, modifier, integrated=start is not None)
    start = given * 0 if start is None else start
    return sum(add_up(part, outputs, given, start) for part, outputs, _ in _batches(model, x, y, batch))


def gene_effects(models: list, data, parts: Iterable[tuple] | None = None, *, on: str = "test", **how) -> np.ndarray:
    """Gene-effect scores from the networks of a cross-validation, (classes, genes), between 0 and 1.

    Each network explains the samples of its own part for their true class; the scaled maps are averaged by class
    (Mostavi et al. 2020, section 2.6, which does not say whether samples were tested or trained on).

    Parameters
    ----------
    models, data, parts : as `training.trained_on_parts` gives and takes them
    on : "test" or "train", the samples explained
    how : as of `saliency_sums`

    Returns
    -------
    NaN for a class without a sample
    """
    total, counts = 0, np.zeros(data.classes)
    for network, (_, train, test) in zip(models, data.parts if parts is None else parts, strict=True):
        rows = test if on == "test" else train
        x = network.mask.transform(data.X[rows])
        total = total + saliency_sums(network.model(), x, data.y[rows], genes=network.genes, **how)
        counts += np.bincount(data.y[rows], minlength=data.classes)
    with np.errstate(invalid="ignore"):
        return total / counts[:, None]


def class_activation_maps(model, x: np.ndarray, output: int | np.ndarray, batch: int = 256) -> np.ndarray:
    """Where the last maps of a GeneXNet speak for a class (Khorshed et al. 2020, equations 6 to 8; Grad-CAM).

    The score of a class is a weighted sum of the averages of the maps, so the gradient of equation (7) is the same for
    every sample and place: the weight of the map, divided by its cells. No backward pass is needed.

    Parameters
    ----------
    model : as `genexnet.genexnet` builds it
    x : (samples, genes), on the scale the network was trained on
    output : class number, one for all samples or (samples,)
    batch : samples a compiled call

    Returns
    -------
    (samples, side, side), not negative

    Raises
    ------
    ValueError : the network does not end in maps, their average and logits
    """
    chosen = np.broadcast_to(output, len(x))
    maps_of, weights = _maps_of(model), model.get_layer("logits").get_weights()[0]
    parts = []
    for part, outputs, n in _batches(model, x, chosen, batch):
        maps = maps_of.predict_on_batch(part)[:n]
        importance = (outputs[:n] @ weights.T) / (maps.shape[1] * maps.shape[2])
        parts.append(np.maximum(np.einsum("nijk,nk->nij", maps, importance), 0))
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _maps_of(model):
    """The part of a GeneXNet that gives its last maps."""
    from gexlib.training import keras

    if {"maps", "average", "logits"} - {layer.name for layer in model.layers}:
        raise ValueError(
            f"the network '{model.name}' has no layers maps, average and logits; Gene-CAM needs a GeneXNet."
        )
    return keras.Model(model.input, model.get_layer("maps").output)


def gene_cam(model, x: np.ndarray, output: int | np.ndarray, *, guided: bool = False, batch: int = 256) -> np.ndarray:
    """Gene-CAM: the class activation map of each sample, enlarged to the image and read at each gene's pixel.

    Genes of one pixel share a value, and those of one cell of the map nearly so: the map names regions of the gene
    order, hundreds of genes each. The map is stretched over the whole image, as Grad-CAM does; poolings that drop a
    border shift it by less than a cell. `guided` multiplies it by the size of the guided gradient, which is each
    gene's own (Guided Grad-CAM, Selvaraju et al. 2017).

    Parameters
    ----------
    model, x, output, batch : as of `class_activation_maps`

    Returns
    -------
    (samples, genes), not negative
    """
    from gexlib.models.genexnet import gene_pixels
    from gexlib.training import keras

    cams = class_activation_maps(model, x, output, batch)
    side, channels = model.get_layer("image").output.shape[2:4]
    large = keras.ops.image.resize(cams[..., None], (side, side), interpolation="bilinear", data_format="channels_last")
    rows, columns = gene_pixels(x.shape[1], channels)
    found = keras.ops.convert_to_numpy(large)[:, rows, columns, 0]
    return found * np.abs(class_gradients(model, x, output, guided=True, batch=batch)) if guided else found


def mean_by_class(scores: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Scores of samples, (samples, genes), averaged over each class, (classes, genes); NaN without a sample."""
    members = np.eye(classes)[y].T
    with np.errstate(invalid="ignore"):
        return (members @ scores) / members.sum(axis=1, keepdims=True)


def highest(scores: np.ndarray, k: int) -> np.ndarray:
    """Whether a gene is among the `k` highest of its row, of the shape of `scores`; the first of equals come first.

    A score of 0, negative or NaN is never among them: a row of such names nothing.
    """
    scores, chosen = np.nan_to_num(scores), np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1, kind="stable")[:, :k], True, axis=1)
    return chosen & (scores > 0)


def _batches(model, x: np.ndarray, chosen: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Samples in batches of one size, the last one padded; which logit of each is meant, 0 and 1; and how many."""
    classes = model.output_shape[1]
    batch = min(batch, len(x))
    for first in range(0, len(x), batch):
        part = np.asarray(x[first : first + batch], dtype=np.float32)
        outputs = np.eye(classes, dtype=np.float32)[chosen[first : first + batch]]
        n, short = len(part), ((0, batch - len(part)), (0, 0))
        if n < batch:
            part, outputs = np.pad(part, short), np.pad(outputs, short)
        yield part, outputs, n


@lru_cache(maxsize=8)  # compiled once a model, whatever weights it has by then
def _program(model, guided: bool, modifier: str | None, integrated: bool = False) -> Callable:
    """A compiled function of a batch: its gradients, or with a modifier the sums of its scaled maps by class."""
    from gexlib.training import keras

    ops = keras.ops

    def explained(gradient, x, outputs, given=None, baseline=None):
        if modifier is None:
            return gradient(x, outputs)
        if integrated:
            way = x - baseline
            points = [(step + 0.5) / PATH_STEPS for step in range(PATH_STEPS)]
            found = way * sum(gradient(baseline + share * way, outputs) for share in points) / PATH_STEPS
        else:
            found = gradient(x, outputs)
        maps = given * (ops.abs(found) if modifier == "absolute" else ops.relu(found))
        low, high = ops.min(maps, axis=1, keepdims=True), ops.max(maps, axis=1, keepdims=True)
        share = outputs / (high - low + 1e-7)  # the scaled maps are never written out, only their sums
        return ops.matmul(ops.transpose(share), maps) - ops.sum(share * low, axis=0)[:, None]

    compiled = (_jax_program if keras.backend.backend() == "jax" else _tensorflow_program)(model, explained)

    def run(*values):
        with _guided_rectifiers(model) if guided else nullcontext():  # matters while the first call is traced
            return np.asarray(compiled(*values))

    return run


def _tensorflow_program(model, explained: Callable) -> Callable:
    import tensorflow as tf

    from gexlib.training import convolves

    def gradient(x, outputs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logit = tf.reduce_sum(model(x, training=False) * outputs)
        return tape.gradient(logit, x)

    compiled = tf.function(lambda *values: explained(gradient, *values), jit_compile=not convolves(model))
    return lambda *values: compiled(*map(tf.convert_to_tensor, values)).numpy()


def _jax_program(model, explained: Callable) -> Callable:
    import jax

    def of_weights(weights, state, *values):
        def logit(x, outputs):
            return (model.stateless_call(weights, state, x, training=False)[0] * outputs).sum()

        return explained(jax.grad(logit), *values)

    compiled = jax.jit(of_weights)
    groups = model.trainable_variables, model.non_trainable_variables
    return lambda *values: compiled(*([v.value for v in group] for group in groups), *values)


@contextmanager
def _guided_rectifiers(model) -> Iterator[None]:
    """Let every rectifier of `model` pass back only what is positive, where it is itself open."""
    from gexlib.training import keras

    ops = keras.ops

    @ops.custom_gradient
    def guided(x):
        def backward(*passed, upstream=None):
            upstream = passed[0] if upstream is None else upstream
            return upstream * ops.cast(ops.logical_and(x > 0, upstream > 0), x.dtype)

        return ops.relu(x), backward

    rectified = [layer for layer in model.layers if getattr(layer, "activation", None) is keras.activations.relu]
    for layer in rectified:
        layer.activation = guided
    try:
        yield
    finally:
        for layer in rectified:
            layer.activation = keras.activations.relu


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


def recovery_by_class(effects: np.ndarray, planted: np.ndarray, k: int = 10, seed: int = 0) -> pd.DataFrame:
    """How well each class's ranking finds its own planted genes, averaged over the classes that have any.

    Parameters
    ----------
    effects : (classes, genes) scores, larger is more important
    planted : (classes, genes) bool
    k : genes at the top of each class that are looked at

    Returns
    -------
    DataFrame, index measure, columns value, low, high, n (classes), null: as of `recovery`, with intervals from
    drawing classes
    """
    classes = np.flatnonzero(planted.any(axis=1) & np.isfinite(effects).all(axis=1))
    found, one = share_among_top(effects, planted, k)[classes], np.ones((1, effects.shape[1]))
    areas = np.array([weighted_auc(planted[c], effects[c], one)[0] for c in classes])
    nulls = {f"precision at {k}": (found, planted[classes].mean()), "AUC of recovery": (areas, 0.5)}
    rows = {name: {**mean_with_interval(values, seed), "null": null} for name, (values, null) in nulls.items()}
    return pd.DataFrame.from_dict(rows, orient="index").astype({"n": int})


def share_among_top(effects: np.ndarray, genes: np.ndarray, k: int) -> np.ndarray:
    """For each class, the share of the `k` highest scores that belong to `genes`, (classes, genes) bool; (classes,)."""
    top = np.argsort(-effects, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(genes, top, axis=1).mean(axis=1)


def tail_laws(scores: np.ndarray, lowest: float) -> pd.DataFrame:
    """Which law the large scores follow: a power law, a log-normal or an exponential, each cut to [lowest, 1].

    All three are fitted by maximum likelihood to the scores of at least `lowest`; Vuong's test compares each with the
    power law (Clauset, Shalizi and Newman 2009, SIAM Review 51:661, section 5).

    Returns
    -------
    DataFrame, index law, columns log-likelihood (a score), against power law (z of Vuong's test, positive where this
    law fits better), p (two-sided), n

    Raises
    ------
    ValueError : fewer than 20 scores of at least `lowest`
    """
    x = np.sort(scores[(scores >= lowest) & (scores <= 1)])
    if len(x) < 20:
        raise ValueError(f"{len(x)} scores of at least {lowest}; a law needs 20 or more: lower the limit.")
    logs, ends = np.log(x), np.log([lowest, 1.0])

    def power(p):
        grown = p[0] * (ends[1] - ends[0])  # the integral of x^(s - 1) over the cut, s = p[0]
        return (p[0] - 1) * logs - p[0] * ends[0] - np.log(np.expm1(grown) / p[0] if abs(p[0]) > 1e-9 else grown)

    def exponential(p):
        mass = -np.expm1(-p[0] * (1 - lowest)) / p[0] if abs(p[0]) > 1e-9 else 1 - lowest
        return -p[0] * (x - lowest) - np.log(mass)

    def lognormal(p):
        mean, sd = p[0], np.exp(p[1])
        mass = norm.logsf(ends[0], mean, sd) if ends[0] > mean else norm.logcdf(ends[1], mean, sd)
        inside = np.diff(norm.cdf(ends, mean, sd))[0]
        return norm.logpdf(logs, mean, sd) - logs - (np.log(inside) if inside > 0 else mass)

    starts = {"power law": (power, [-1.0]), "log-normal": (lognormal, [logs.mean(), np.log(logs.std())])}
    starts["exponential"] = (exponential, [1.0])
    each = {}
    for name, (law, start) in starts.items():
        best = minimize(lambda p, law=law: -law(p).mean(), start, method="Nelder-Mead", options={"maxiter": 2000})
        each[name] = law(best.x)
    rows = {}
    for name, likelihood in each.items():
        gain = likelihood - each["power law"]
        z = np.sqrt(len(x)) * gain.mean() / gain.std() if gain.std() > 0 else 0.0
        rows[name] = [likelihood.mean(), z, 2 * norm.sf(abs(z)), len(x)]
    columns = ["log-likelihood", "against power law", "p", "n"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype({"n": int})


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


def marker_differences(x: np.ndarray, y: np.ndarray, is_marker: np.ndarray) -> pd.DataFrame:
    """Do markers differ more between classes than other genes do? (Mostavi et al. 2020, figure 4d, e)

    The test is Welch's over genes, as published; it takes genes for independent, so its p-values are too small.

    Parameters
    ----------
    x, y : (samples, genes) and (samples,) class numbers
    is_marker : (classes, genes) bool

    Returns
    -------
    DataFrame, index class number and "all", columns markers, difference (the markers' mean |difference| of means),
    others (that of other genes), p
    """
    gaps = np.stack([np.abs(x[y == k].mean(axis=0) - x[y != k].mean(axis=0)) for k in range(len(is_marker))])
    rows = {}
    for k, (gap, chosen) in enumerate([*zip(gaps, is_marker, strict=True), (gaps, is_marker)]):
        enough = chosen.sum() > 1
        rows["all" if k == len(gaps) else k] = {
            "markers": int(chosen.sum()),
            "difference": gap[chosen].mean() if enough else np.nan,
            "others": gap[~chosen].mean(),
            "p": ttest_ind(gap[chosen], gap[~chosen], equal_var=False).pvalue if enough else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


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
    with catch_warnings():
        simplefilter("ignore", RuntimeWarning)  # a gene that is constant within a class
        one, two = (part[:, varies].astype(float) for part in (first, second))
        t[varies], p[varies] = ttest_ind(one, two, equal_var=False)
    return np.nan_to_num(t), np.nan_to_num(p, nan=1.0)
