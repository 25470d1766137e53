"""From genes to an imaging trait: the autoencoder, and classifiers that start from it, trained by the hundred in JAX.

Smedley et al. 2020 (study 04) train one network a trait, fold, bootstrap draw and setting. They have one shape, so each
is one compiled loop over its epochs, and all of them share the compilation. After every epoch the program says what it
makes of *all* samples in test mode: which epoch is looked at, and on whose samples that is decided, is the question of
the study, and it is asked afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gexlib.evaluate import probabilities_of
from gexlib.models.population import THREADS, adadelta, adam

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
LEARNING_RATES = {"adadelta": 1.0, "adam": 1e-3, "nadam": 1e-3}  # Keras' own at the time of the paper
MASKED_ROWS = 16_384  # masked samples that pass the network at once
NORM_MOMENTUM, NORM_EPSILON = 0.99, 1e-3  # of batch normalisation, Keras' own
CHUNK_BYTES = 16e9  # of weights and moments side by side on a GPU

Dense = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ImagingSettings:
    """A classifier's setting; the defaults are the published widths and optimizer.

    Parameters
    ----------
    widths : units of the hidden layers, each Dense, batch normalisation, activation, dropout
    activation : "tanh", "relu" or "sigmoid"
    dropout : share dropped of the genes and of the units of every hidden layer
    taken, frozen : first layers whose weights come from the autoencoder; those of them that do not train (their batch
        normalisation does)
    optimizer, learning_rate : "adadelta", "adam" or "nadam"; None is Keras' rate

    Raises
    ------
    ValueError : names the setting that makes no sense
    """

    widths: tuple[int, ...] = (4000, 2000, 1000)
    activation: str = "tanh"
    dropout: float = 0.0
    taken: int = 0
    frozen: int = 0
    optimizer: str = "adadelta"
    learning_rate: float | None = None

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation '{self.activation}' is unknown; expected one of {', '.join(ACTIVATIONS)}.")
        if self.optimizer not in LEARNING_RATES:
            raise ValueError(f"optimizer '{self.optimizer}' is unknown; expected one of {', '.join(LEARNING_RATES)}.")
        if not self.widths or any(width < 1 or width != int(width) for width in self.widths):
            raise ValueError(f"widths={self.widths}: expected a layer or more of a unit or more, such as (64, 32, 16).")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: expected 0 or more, and less than 1.")
        if not 0 <= self.frozen <= self.taken <= len(self.widths):
            raise ValueError(
                f"taken={self.taken}, frozen={self.frozen}: of {len(self.widths)} layers some are taken from the "
                "autoencoder, and of those some are frozen."
            )


def published_settings(widths: tuple[int, ...] = (4000, 2000, 1000)) -> dict[str, ImagingSettings]:
    """The settings in the published code, by trait (SPECS of the study: dropout, layers taken, layers frozen)."""
    tuned = partial(ImagingSettings, widths)
    all_tuned, first_frozen = tuned(dropout=0.6, taken=3), tuned(taken=1, frozen=1)
    return {
        "enhancing": all_tuned,
        "nCET": first_frozen,
        "necrosis": first_frozen,
        "edema": first_frozen,
        "infiltrative": tuned(taken=2, frozen=1),
        "multifocal": all_tuned,
    }


@dataclass(frozen=True)
class Autoencoder:
    """A trained autoencoder.

    Attributes
    ----------
    dense, norms : of every layer, mirrored ones too: (W, b) and (gamma, beta, mean, variance)
    mean, scale : (genes,); a gene enters as (x - mean) * scale; one that is constant has scale 0
    losses : (epochs,) mean absolute error in training
    """

    dense: list[Dense] = field(repr=False)
    norms: list[tuple] = field(repr=False)
    mean: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)

    def explained(self, x: np.ndarray) -> float:
        """Share of the variance of z-scored genes that the reconstruction explains, (samples, genes) on any samples."""
        z = (np.asarray(x, np.float32) - self.mean) * self.scale
        again = np.asarray(_hidden(z, self.dense, self.norms, jnp.tanh)[0])
        return float(1 - ((z - again) ** 2).sum() / ((z - z.mean(axis=0)) ** 2).sum())


def autoencode(
    x: np.ndarray,
    widths: Sequence[int] = (4000, 2000, 1000),
    *,
    epochs: int = 500,
    batch: int = 50,
    learning_rate: float = 1.0,
    seed: int = 0,
) -> Autoencoder:
    """Train the autoencoder of Smedley et al. 2020: genes - widths - widths mirrored - genes.

    Every layer is Dense, batch normalisation, tanh, the last one too, so that it can say no more than one SD; mean
    absolute error of genes z-scored on `x`; Adadelta at rate 1. No early stopping: the published one waits 200 epochs.

    Parameters
    ----------
    x : (samples, genes), patients whose traits are not known
    """
    rng = np.random.RandomState(seed)
    mean, scale = _scaling(x)
    z = np.asarray((x - mean) * scale, np.float32)
    sizes = [x.shape[1], *widths, *reversed(widths[:-1]), x.shape[1]]
    dense = [_glorot(rng, *pair) for pair in zip(sizes, sizes[1:], strict=False)]
    order, _ = _orders(np.arange(len(x)), len(x), epochs, batch, rng)
    dense, norms, losses = jax.device_get(_autoencode(np.vstack([z, z[:1] * 0]), dense, order, learning_rate))
    return Autoencoder(dense, norms, mean, scale, losses)


@dataclass(frozen=True)
class Fit:
    """One classifier to train.

    Parameters
    ----------
    train : row numbers, a row as often as it was drawn
    settings : the network's
    seed : of start weights, order and dropout
    keep : the epoch, from 0, whose weights are kept; by default the last
    y : (samples,) labels of this fit, where they are not those of all
    encoder : where weights are taken from; its scaling of genes is used as well, as published
    """

    train: np.ndarray
    settings: ImagingSettings
    seed: int
    keep: int | None = None
    y: np.ndarray | None = None
    encoder: Autoencoder | None = None


@dataclass(frozen=True)
class Course:
    """What one training said after each of its epochs, and its network.

    Attributes
    ----------
    logits : (epochs, samples, outputs) of all samples in test mode; one output for two classes
    kept : the epoch, from 0, whose weights these are
    dense, norms : of the hidden layers, as of `Autoencoder`; `dense` ends in the last layer's (W, b)
    mean, scale : (genes,)
    settings : the fit's
    """

    logits: np.ndarray = field(repr=False)
    kept: int
    dense: list[Dense] = field(repr=False)
    norms: list[tuple] = field(repr=False)
    mean: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    settings: ImagingSettings

    def probabilities(self, epoch: int | None = None) -> np.ndarray:
        """Of all samples after an epoch, that of the kept weights if none is named: (samples, classes)."""
        return probabilities_of(self.logits[self.kept if epoch is None else epoch])

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """Genes as the network sees them, (samples, genes); 0 is the mean of those it was scaled by."""
        return (np.asarray(x, np.float32) - self.mean) * self.scale

    def saliency(self, x: np.ndarray, output: int = 0, guided: bool = False) -> np.ndarray:
        """Gradient of a logit by every z-scored gene, (samples, genes): the paper's gene saliency, with its sign.

        Positive where more of the gene raises the belief in the positive class (with one output) or in class `output`,
        as the paper's text says; its code takes the absolute value, of a "guided" gradient, which for tanh is the plain
        one. `guided` stops what is negative at every rectifier.

        Raises
        ------
        ValueError : guided, and the network has no rectifier
        """
        activation = self.settings.activation
        if guided and activation != "relu":
            raise ValueError(f"guided saliency is for rectifiers; with {activation} it is the plain gradient.")
        return np.asarray(
            _saliency(self.scaled(x), self.dense, self.norms, output, activation="guided" if guided else activation)
        )

    def masked(self, x: np.ndarray, sets: Sequence[np.ndarray]) -> np.ndarray:
        """Logits where only the genes of one set are kept and all others are 0, the mean: the paper's gene masking.

        A masked sample needs the kept rows of the first layer's weights alone, so thousands of sets are one pass
        through the other layers.

        Parameters
        ----------
        x : (samples, genes) on the cohort's scale
        sets : gene numbers of each set

        Returns
        -------
        (sets, samples, outputs)
        """
        z, (w, b) = self.scaled(x), self.dense[0]
        each = max(1, min(len(sets), MASKED_ROWS // len(z)))
        found = np.empty((len(sets), len(z), self.logits.shape[2]), np.float32)
        for begin in range(0, len(sets), each):
            some = sets[begin : begin + each]
            first = np.zeros((each, len(z), len(b)), np.float32)
            for place, genes in enumerate(some):
                first[place] = z[:, genes] @ w[genes] + b
            logits = _rest(first.reshape(-1, len(b)), self.dense, self.norms, activation=self.settings.activation)
            found[begin : begin + each] = np.asarray(logits).reshape(each, len(z), -1)[: len(some)]
        return found

    def network(self):
        """The same network as a keras.Model, (samples, z-scored genes) -> (samples, outputs) logits."""
        model = imaging_network(len(self.mean), self.settings, self.logits.shape[2])
        arrays = [array for (w, b), norm in zip(self.dense, self.norms, strict=False) for array in (w, b, *norm)]
        model.set_weights([*arrays, *self.dense[-1]])
        return model


def imaging_network(genes: int, settings: ImagingSettings, outputs: int = 1):
    """The classifier of Smedley et al. 2020, figure 1a, as a keras.Model; logits, as the published saliency asks for.

    58,190,001 trainable parameters at 12,042 genes and the published widths, batch normalisation's included.
    """
    from gexlib.training import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((genes,)), layers.Dropout(settings.dropout)], name="imaging_network")
    for width in settings.widths:
        model.add(layers.Dense(width))
        model.add(layers.BatchNormalization(momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON))
        model.add(layers.Activation(settings.activation))
        model.add(layers.Dropout(settings.dropout))
    model.add(layers.Dense(outputs, name="logits"))
    return model


def train_each(
    x: np.ndarray, y: np.ndarray, fits: Iterable[Fit], *, epochs: int = 500, batch: int = 10, balanced: bool = True
) -> list[Course]:
    """Train every fit: cross-entropy, samples weighted so that classes weigh alike, a fresh order every epoch.

    A first layer that is frozen and not dropped out is the same function of the genes throughout, so it is computed
    once, before training. On a CPU two networks train at a time; on a GPU side by side.

    Parameters
    ----------
    x : (samples, genes) on the cohort's scale; each fit scales them by its training rows, or by its encoder
    y : (samples,) class numbers from 0
    epochs, batch : passes through the training rows; samples a step
    balanced : weigh samples as scikit-learn's "balanced" does; as published, except in the last fit to all patients

    Returns
    -------
    a `Course` for each fit, in their order

    Raises
    ------
    ValueError : a value is not finite, one class only in a fit's training rows, or layers to take and no encoder
    """
    x, y, fits = np.asarray(x, np.float32), np.asarray(y), list(fits)
    classes = int(max([y.max(), *(fit.y.max() for fit in fits if fit.y is not None)])) + 1
    if not np.isfinite(x).all():
        raise ValueError("an expression value is not finite; fill or drop it first.")
    for number, fit in enumerate(fits):
        _check(fit, y if fit.y is None else fit.y, number, classes)
    groups: dict[tuple, list[int]] = {}
    for number, fit in enumerate(fits):
        groups.setdefault(_program(fit, batch), []).append(number)
    run = _on_threads if jax.default_backend() == "cpu" else _side_by_side
    courses: list[Course | None] = [None] * len(fits)
    for group in groups.values():
        for i, course in zip(group, run(x, y, [fits[i] for i in group], epochs, batch, balanced, classes), strict=True):
            courses[i] = course
    return courses


def _check(fit: Fit, y: np.ndarray, number: int, classes: int) -> None:
    found = np.unique(y[fit.train])
    if len(found) < 2:
        raise ValueError(f"fit {number}: its {len(fit.train)} training rows hold class {found.tolist()} alone.")
    if fit.settings.taken and fit.encoder is None:
        raise ValueError(f"fit {number}: {fit.settings.taken} layers are to be taken, but there is no autoencoder.")
    if fit.encoder is not None:
        have = tuple(len(b) for _, b in fit.encoder.dense[: fit.settings.taken])
        if have != tuple(fit.settings.widths[: fit.settings.taken]):
            raise ValueError(
                f"fit {number}: the autoencoder's layers have {have} units, the network's {fit.settings.widths}."
            )


def _program(fit: Fit, batch: int) -> tuple:
    """What fits must share to share a compilation."""
    s = fit.settings
    return s.widths, s.activation, s.optimizer, s.frozen, s.dropout > 0, -(-len(fit.train) // batch)


def _scaling(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / SD of every gene, 0 for one that is constant."""
    varies, sd = np.ptp(x, axis=0) > 0, x.std(axis=0, dtype=np.float64)
    scale = np.where(varies, 1 / np.where(varies, sd, 1), 0)
    return x.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32)


def _glorot(rng: np.random.RandomState, inputs: int, units: int) -> Dense:
    bound = np.sqrt(6 / (inputs + units))
    return rng.uniform(-bound, bound, (inputs, units)).astype(np.float32), np.zeros(units, np.float32)


def _orders(train: np.ndarray, rows: int, epochs: int, batch: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Rows of every step, (epochs, steps, batch), number `rows` being padding; and keys of dropout.

    They are drawn epoch by epoch, so that a training of fewer epochs is the beginning of a longer one.
    """
    steps = -(-len(train) // batch)
    order, keys = np.full((epochs, steps * batch), rows, np.int32), np.empty((epochs, steps, 2), np.uint32)
    for epoch in range(epochs):
        order[epoch, : len(train)] = rng.permutation(train)
        keys[epoch] = rng.randint(0, 2**32, (steps, 2), dtype=np.uint32)
    return order.reshape(epochs, steps, batch), keys


def _prepared(x, y, fit: Fit, epochs: int, batch: int, balanced: bool, classes: int, known: dict) -> dict:
    """The arguments of `_train` that are this fit's own; `known` holds inputs of all rows that several fits share."""
    settings, rng, y = fit.settings, np.random.RandomState(fit.seed), y if fit.y is None else fit.y
    mean, scale = _scaling(x[fit.train]) if fit.encoder is None else (fit.encoder.mean, fit.encoder.scale)
    sizes, outputs = [x.shape[1], *settings.widths], 1 if classes == 2 else classes
    dense = [_glorot(rng, *pair) for pair in zip(sizes, sizes[1:], strict=False)]
    head = _glorot(rng, sizes[-1], outputs)
    if fit.encoder is not None:
        dense[: settings.taken] = fit.encoder.dense[: settings.taken]
    key = id(fit.encoder) if fit.encoder is not None else id(fit)
    key = (key, settings.frozen > 0 and not settings.dropout)
    if key not in known:
        known[key] = _inputs(x, mean, scale, dense[0] if key[1] else None)
    order, keys = _orders(fit.train, len(x), epochs, batch, rng)
    counts = np.bincount(y[fit.train], minlength=classes)
    weight = len(fit.train) / ((counts > 0).sum() * np.maximum(counts, 1)) if balanced else np.ones(classes)
    return {
        "x": known[key],
        "dense": [*dense, head],
        "y": np.append(y, 0).astype(np.int32),
        "weight": np.append(weight[y], 0).astype(np.float32),
        "keep": np.int32(epochs - 1 if fit.keep is None else fit.keep),
        "order": order,
        "keys": keys,
        "dropout": np.float32(settings.dropout),
        "rate": np.float32(
            LEARNING_RATES[settings.optimizer] if settings.learning_rate is None else settings.learning_rate
        ),
        "scaling": (mean, scale),
    }


def _inputs(x, mean, scale, first: Dense | None) -> np.ndarray:
    """z-scored genes of all rows, or what a frozen first layer makes of them; the last row is padding."""
    z = (x - mean) * scale
    z = z if first is None else z @ first[0] + first[1]
    return np.vstack([z, np.zeros((1, z.shape[1]))]).astype(np.float32)


def _how(fit: Fit) -> dict:
    s = fit.settings
    projected = s.frozen > 0 and not s.dropout
    return dict(
        activation=s.activation, optimizer=s.optimizer, frozen=s.frozen, drops=s.dropout > 0, projected=projected
    )


def _on_threads(x, y, fits, epochs, batch, balanced, classes) -> list[Course]:
    """Two at a time; the first one alone, since it compiles the program."""
    known: dict = {}

    def one(fit):
        arguments = _prepared(x, y, fit, epochs, batch, balanced, classes, known if fit.encoder is not None else {})
        scaling = arguments.pop("scaling")
        return _course(fit, jax.device_get(_train(arguments, **_how(fit))), arguments["dense"], scaling)

    first = one(fits[0])
    with ThreadPoolExecutor(THREADS) as pool:
        return [first, *pool.map(one, fits[1:])]


def _side_by_side(x, y, fits, epochs, batch, balanced, classes) -> list[Course]:
    """In chunks that fit into memory; a short chunk repeats its last fit up to a power of two."""
    genes, widths = x.shape[1], fits[0].settings.widths
    weights = sum(a * b for a, b in zip([genes, *widths], widths, strict=False))
    most, courses, known = max(1, int(CHUNK_BYTES // (20 * weights))), [], {}
    for begin in range(0, len(fits), most):
        chunk = fits[begin : begin + most]
        each = [_prepared(x, y, f, epochs, batch, balanced, classes, known if f.encoder else {}) for f in chunk]
        scalings = [arguments.pop("scaling") for arguments in each]
        full = min(most, 1 << (len(chunk) - 1).bit_length())
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each, *[each[-1]] * (full - len(chunk)))
        found = jax.device_get(_train_chunk(stacked, **_how(chunk[0])))
        for i, (fit, scaling) in enumerate(zip(chunk, scalings, strict=True)):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], found)
            courses.append(_course(fit, own, each[i]["dense"], scaling))
    return courses


def _course(fit: Fit, found: tuple, start: list[Dense], scaling: tuple) -> Course:
    logits, (trained, norms), moving = found
    dense = [*start[: fit.settings.frozen], *trained]
    norms = [(*norm, *statistics) for norm, statistics in zip(norms, moving, strict=True)]
    kept = len(logits) - 1 if fit.keep is None else fit.keep
    return Course(logits[:, :-1], kept, dense, norms, *scaling, fit.settings)


_STATIC = ("activation", "optimizer", "frozen", "drops", "projected")


@partial(jax.jit, static_argnames=_STATIC)
def _train(arguments, **how):
    return _training(arguments, **how)


@partial(jax.jit, static_argnames=_STATIC)
def _train_chunk(arguments, **how):
    return jax.vmap(lambda member: _training(member, **how))(arguments)


def _training(member, activation, optimizer, frozen, drops, projected):
    """Logits of all rows after every epoch; weights and statistics of normalisation of the epoch that is kept."""
    act, x, y = ACTIVATIONS[activation], member["x"], member["y"]
    fixed, hidden = member["dense"][:frozen], member["dense"][:-1]
    units = [len(b) for _, b in hidden]
    norms = [(jnp.ones(n), jnp.zeros(n)) for n in units]
    moving = [(jnp.zeros(n), jnp.ones(n)) for n in units]
    start, unravel = ravel_pytree((member["dense"][frozen:], norms))
    update = _updates(optimizer, member["order"].shape[0] * member["order"].shape[1])
    inputs = [x.shape[1], *units]

    def said(w, moving):
        trained, norms = unravel(w)
        layers = [*fixed, *trained]
        full = [(*norm, *statistics) for norm, statistics in zip(norms, moving, strict=True)]
        h, _ = _hidden(x, layers[:-1], full, act, projected=projected)
        return h @ layers[-1][0] + layers[-1][1]

    def loss(w, rows, key):
        trained, norms = unravel(w)
        layers, there = [*fixed, *trained], (rows < len(x) - 1).astype(jnp.float32)
        kept = _kept(key, len(rows), inputs, member["dropout"]) if drops else None
        h, statistics = _hidden(x[rows], layers[:-1], norms, act, there=there, kept=kept, projected=projected)
        h = h if kept is None else h * kept[-1]
        losses = _cross_entropy(h @ layers[-1][0] + layers[-1][1], y[rows])
        return (losses * member["weight"][rows] * there).sum() / jnp.maximum(there.sum(), 1), statistics

    def step(carried, now):
        (w, *moments, moving, number), (rows, key) = carried, now
        gradient, statistics = jax.grad(loss, has_aux=True)(w, rows, key)
        w, *moments = update(w, gradient, *moments, number, member["rate"])
        return (w, *moments, _moved(moving, statistics), number + 1), None

    def epoch(carried, now):
        (*carried, kept), (number, rows, keys) = carried, now
        carried, _ = jax.lax.scan(step, tuple(carried), (rows, keys))
        logits = said(carried[0], carried[3])
        now = carried[0], carried[3]
        return (
            *carried,
            jax.tree.map(lambda new, old: jnp.where(number == member["keep"], new, old), now, kept),
        ), logits

    zeros, count = jnp.zeros_like(start), jnp.arange(len(member["order"]))
    carried = (start, zeros, zeros, moving, jnp.int32(1), (start, moving))
    (*_, (w, moving)), logits = jax.lax.scan(epoch, carried, (count, member["order"], member["keys"]))
    return logits, unravel(w), moving


def _hidden(x, dense, norms, act, there=None, kept=None, projected=False):
    """Hidden layers; with `there` (rows,) in training, normalised by the batch, whose means and variances come back.

    `norms` holds (gamma, beta) in training, and (gamma, beta, mean, variance) in test mode.
    """
    h, statistics = x, []
    for layer, ((w, b), (gamma, beta, *moving)) in enumerate(zip(dense, norms, strict=True)):
        h = h if kept is None else h * kept[layer]
        z = h if projected and layer == 0 else h @ w + b
        if there is None:
            mean, variance = moving
        else:
            share = there[:, None] / jnp.maximum(there.sum(), 1)
            mean = (share * z).sum(axis=0)
            variance = (share * (z - mean) ** 2).sum(axis=0)
        statistics.append((mean, variance))
        h = act((z - mean) / jnp.sqrt(variance + NORM_EPSILON) * gamma + beta)
    return h, statistics


@jax.custom_vjp
def _guided(x):
    return jax.nn.relu(x)


_guided.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, upstream: (jnp.where(x > 0, jax.nn.relu(upstream), 0),))


@partial(jax.jit, static_argnames="activation")
def _rest(h, dense, norms, *, activation):
    """Logits from the first layer's units before normalisation."""
    act = {"guided": _guided, **ACTIVATIONS}[activation]
    h, _ = _hidden(h, dense[:-1], norms, act, projected=True)
    return h @ dense[-1][0] + dense[-1][1]


@partial(jax.jit, static_argnames="activation")
def _saliency(z, dense, norms, output, *, activation):
    def logit(z):
        return _rest(z @ dense[0][0] + dense[0][1], dense, norms, activation=activation)[:, output].sum()

    return jax.grad(logit)(z)


def _moved(moving, statistics):
    return jax.tree.map(lambda old, new: NORM_MOMENTUM * old + (1 - NORM_MOMENTUM) * new, moving, statistics)


def _cross_entropy(logits, y):
    if logits.shape[1] == 1:
        return jax.nn.softplus(jnp.where(y == 1, -logits[:, 0], logits[:, 0]))
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def _kept(key, rows, sizes, dropout):
    """What dropout multiplies genes and hidden units by: 0, or 1 / (1 - dropout)."""
    bits = jax.random.bits(jax.random.wrap_key_data(key), (rows, sum(sizes)), jnp.uint16)
    factors = (bits >= (dropout * 65536).astype(jnp.uint16)) / (1 - dropout)
    return jnp.split(factors, np.cumsum(sizes)[:-1], axis=1)


def _updates(optimizer: str, steps: int):
    """Keras' update rule of this name: (weights, gradient, two moments, step from 1, rate) -> weights, moments."""
    if optimizer == "adadelta":
        return lambda *now: adadelta(*now, rho=0.95, epsilon=1e-7)
    if optimizer == "adam":
        return adam
    momentum = 0.9 * (1 - 0.5 * 0.96 ** np.arange(1, steps + 2))
    done, momentum = jnp.asarray(np.cumprod(momentum), jnp.float32), jnp.asarray(momentum, jnp.float32)

    def nadam(w, g, mean, squares, step, rate, beta1=0.9, beta2=0.999, epsilon=1e-7):
        mean, squares = beta1 * mean + (1 - beta1) * g, beta2 * squares + (1 - beta2) * g * g
        ahead = momentum[step] * mean / (1 - done[step]) + (1 - momentum[step - 1]) * g / (1 - done[step - 1])
        return w - rate * ahead / (jnp.sqrt(squares / (1 - beta2**step)) + epsilon), mean, squares

    return nadam


@jax.jit
def _autoencode(z, dense, order, rate):
    """Trained layers, their normalisation, and the mean absolute error of every epoch."""
    norms = [(jnp.ones(len(b)), jnp.zeros(len(b))) for _, b in dense]
    moving = [(jnp.zeros(len(b)), jnp.ones(len(b))) for _, b in dense]
    start, unravel = ravel_pytree((dense, norms))
    update = _updates("adadelta", 0)

    def loss(w, rows):
        dense, norms = unravel(w)
        there = (rows < len(z) - 1).astype(jnp.float32)
        again, statistics = _hidden(z[rows], dense, norms, jnp.tanh, there=there)
        return (jnp.abs(again - z[rows]).mean(axis=1) * there).sum() / there.sum(), statistics

    def step(carried, rows):
        w, squares, moves, moving = carried
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(w, rows)
        w, squares, moves = update(w, gradient, squares, moves, 1, rate)
        return (w, squares, moves, _moved(moving, statistics)), value

    def epoch(carried, rows):
        carried, values = jax.lax.scan(step, carried, rows)
        return carried, values.mean()

    zeros = jnp.zeros_like(start)
    (w, _, _, moving), losses = jax.lax.scan(epoch, (start, zeros, zeros, moving), order)
    dense, norms = unravel(w)
    return dense, [(*norm, *statistics) for norm, statistics in zip(norms, moving, strict=True)], losses
