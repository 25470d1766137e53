"""Hundreds of small networks trained as a few compiled programs, in JAX whatever backend Keras has.

The whole training of a network is one compiled loop. Widths, genes and rows are padded to a few sizes, so that networks
share compilations; padding adds zero weights and rows of weight 0, whose gradients are exactly 0. On a CPU the networks
of a population are trained one after another on two threads; on a GPU side by side, in chunks. A network's result
depends on itself and its seed alone: not on its neighbours (on a GPU up to rounding), nor on which thread ran it.

What is trained is the network of the package h2o, which Urda et al. 2017 used, as its public source has it: z-scored
genes; start weights uniform within sqrt(6 / (inputs + outputs)) of zero ("UniformAdaptive"), four times that in the
last layer; biases that start at 0.5 in the first hidden layer and 1 in later ones (tanh and the last layer: 0); softmax
and cross-entropy; ADADELTA with rho 0.99 and epsilon 1e-8; ten epochs. Three details differ. A step sees `batch`
samples, and one in h2o. What dropout removes is made up for while training; h2o scales hidden units afterwards, and
inputs never. Each bias has an ADADELTA rate of its own; h2o's follows the weights of its unit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gexlib.evaluate import class_aucs
from gexlib.splits import inner_split

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
import jax  # noqa: E402  it reads the line above
import jax.numpy as jnp  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402

if TYPE_CHECKING:  # gexlib.models.mlp loads Keras, which nothing here needs
    from gexlib.models.mlp import DeepNetSettings

THREADS = 2
STEPS = {"genes": 64, "rows": 128, "units": 32}  # sizes are padded to multiples of these
CHUNK = 256  # networks side by side on a GPU; about 10 MB each at 300 genes and 1,100 rows
LEARNING_RATES = {"adadelta": 1.0, "adam": 1e-3}

Weights = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Member:
    """One network to train.

    Parameters
    ----------
    x, y : (samples, genes) and (samples,) class numbers from 0
    x_new : (new samples, genes), to predict
    settings : of `gexlib.models.mlp`
    seed : of the start weights, the order of the samples and dropout
    weight : (samples,) weights in the loss; 1 by default
    start : start weights, laid out as `Trained.weights`; drawn by default
    """

    x: np.ndarray
    y: np.ndarray
    x_new: np.ndarray
    settings: DeepNetSettings
    seed: int
    weight: np.ndarray | None = None
    start: Weights | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Trained:
    """A trained network, and what it says of its member's `x_new`.

    Attributes
    ----------
    probabilities : (new samples, classes)
    weights : for each layer (inputs, pieces, units) and (pieces, units); maxout has two pieces, other layers one
    mean, scale : (genes,); a gene enters as (x - mean) * scale of the training samples. A gene that is constant there
        has scale 0: it takes no part, as h2o drops it
    """

    activation: str
    weights: Weights = field(repr=False)
    mean: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    probabilities: np.ndarray | None = None

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities, (samples, genes) -> (samples, classes)."""
        h = (np.asarray(x, dtype=np.float32) - self.mean) * self.scale
        for w, b in self.weights[:-1]:
            z = (h @ w.reshape(len(w), -1)).reshape(len(h), *b.shape) + b
            h = {"tanh": np.tanh, "rectifier": lambda z: np.maximum(z, 0), "maxout": lambda z: z}[self.activation](z)
            h = h.max(axis=1)
        w, b = self.weights[-1]
        logits = h @ w[:, 0] + b[0]
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return exponentials / exponentials.sum(axis=1, keepdims=True)


def train_population(
    members: Sequence[Member],
    *,
    epochs: int = 10,
    batch: int | None = 32,
    optimizer: str = "adadelta",
    learning_rate: float | None = None,
    classes: int = 2,
) -> list[Trained]:
    """Train every member, and predict its `x_new`.

    Parameters
    ----------
    members : in any order and of any sizes
    epochs, batch : passes through the samples, shuffled anew each time; samples a step, None for all of them
    optimizer, learning_rate : "adadelta" (rate 1, as in h2o) or "adam" (rate 1e-3)
    classes : outputs

    Returns
    -------
    a `Trained` for each member, in their order

    Raises
    ------
    ValueError : an unknown optimizer, or a member whose arrays do not fit, are not finite or hold one class only
    """
    if optimizer not in LEARNING_RATES:
        raise ValueError(f"optimizer '{optimizer}' is unknown; expected one of {', '.join(LEARNING_RATES)}.")
    for number, member in enumerate(members):
        _check(member, number, classes)
    rate = np.float32(LEARNING_RATES[optimizer] if learning_rate is None else learning_rate)
    groups: dict[tuple, list[int]] = {}
    for number, member in enumerate(members):
        groups.setdefault(_program(member, batch), []).append(number)
    run = _on_threads if jax.default_backend() == "cpu" else _side_by_side
    trained = run([[members[i] for i in group] for group in groups.values()], epochs, batch, optimizer, rate, classes)
    order = [i for group in groups.values() for i in group]
    return [trained[position] for position in np.argsort(order)]


def _check(member: Member, number: int, classes: int) -> None:
    x, y, where = np.asarray(member.x), np.asarray(member.y), f"network {number} of the population"
    if x.ndim != 2 or y.shape != (len(x),) or np.ndim(member.x_new) != 2 or member.x_new.shape[1] != x.shape[1]:
        raise ValueError(
            f"{where}: x is {x.shape}, y {y.shape}, x_new {np.shape(member.x_new)}; "
            "expected (samples, genes), (samples,) and (new samples, the same genes)."
        )
    if not (np.isfinite(x).all() and np.isfinite(member.x_new).all()):
        raise ValueError(f"{where}: an expression value is not finite; fill or drop it first.")
    if not np.isin(y, np.arange(classes)).all() or len(np.unique(y)) < 2:
        raise ValueError(
            f"{where}: y holds {np.unique(y)[:5].tolist()}; expected two or more of the classes 0 to {classes - 1}."
        )


def _up(size: int, kind: str) -> int:
    return -(-size // STEPS[kind]) * STEPS[kind]


def _program(member: Member, batch: int | None) -> tuple:
    """What two members must share to be trained by one compiled program, side by side."""
    settings, (rows, genes) = member.settings, member.x.shape
    widths = tuple(_up(width, "units") for width in settings.widths)
    drops = settings.input_dropout > 0 or max(settings.hidden_dropout) > 0
    steps = 1 if batch is None else -(-rows // batch)
    return _up(genes, "genes"), _up(rows + 1, "rows"), widths, settings.activation == "maxout", drops, steps


def _prepared(member: Member, epochs: int, batch: int | None, classes: int) -> tuple[Trained, dict]:
    """The network before its first step, and the padded arguments of `_train`."""
    settings, rng = member.settings, np.random.RandomState(member.seed)
    x = np.asarray(member.x, dtype=np.float32)
    mean, sd = x.mean(axis=0, dtype=np.float64).astype(np.float32), x.std(axis=0, dtype=np.float64)
    varies = np.ptp(x, axis=0) > 0
    scale = np.where(varies, 1 / np.where(varies, sd, 1), 0).astype(np.float32)
    drawn = start_weights(settings, x.shape[1], classes, rng)
    network = Trained(settings.activation, drawn if member.start is None else member.start, mean, scale)

    genes, rows, widths, _, _, steps = _program(member, batch)
    sizes = [genes, *widths, classes]
    weights = [
        (_padded(w, (inputs, w.shape[1], units)), _padded(b, (len(b), units)))
        for (w, b), inputs, units in zip(network.weights, sizes, sizes[1:], strict=False)
    ]
    weight = np.ones(len(x)) if member.weight is None else member.weight
    slots = rows if batch is None else batch
    order = np.full((epochs, steps * slots), len(x), dtype=np.int32)  # row number len(x) is padding, of weight 0
    for epoch in range(epochs):
        order[epoch, : len(x)] = rng.permutation(len(x))
    return network, {
        "weights": weights,
        "x": _padded((x - mean) * scale, (rows, genes)),
        "y": _padded(member.y, (rows,), np.int32),
        "weight": _padded(weight, (rows,)),
        "order": order.reshape(epochs * steps, slots),
        "keys": rng.randint(0, 2**32, (epochs * steps, 2), dtype=np.uint32),
        "dropout": np.array([settings.input_dropout, *settings.hidden_dropout], dtype=np.float32),
        "is_tanh": np.bool_(settings.activation == "tanh"),
        "penalties": np.array([settings.l1, settings.l2], dtype=np.float32),
    }


def start_weights(settings: DeepNetSettings, genes: int, classes: int, rng: np.random.RandomState) -> Weights:
    """h2o's start (see the top of this module), laid out as `Trained.weights`."""
    sizes, pieces = [genes, *settings.widths], 2 if settings.activation == "maxout" else 1
    weights = []
    for layer, (inputs, units) in enumerate(zip(sizes, settings.widths, strict=False)):
        bound = np.sqrt(6 / (inputs + units))
        bias = 0.0 if settings.activation == "tanh" else (0.5 if layer == 0 else 1.0)
        w = rng.uniform(-bound, bound, (inputs, pieces, units))
        weights.append((w.astype(np.float32), np.full((pieces, units), bias, dtype=np.float32)))
    bound = 4 * np.sqrt(6 / (sizes[-1] + classes))
    w = rng.uniform(-bound, bound, (sizes[-1], 1, classes))
    return [*weights, (w.astype(np.float32), np.zeros((1, classes), dtype=np.float32))]


def _padded(values: np.ndarray, shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    values = np.asarray(values, dtype=dtype)
    return np.pad(values, [(0, to - have) for to, have in zip(shape, values.shape, strict=True)])


def _on_threads(groups, epochs, batch, optimizer, rate, classes) -> list[Trained]:
    """Each member on one of two threads; the first of each group goes first, since it compiles the program."""

    def one(member):
        network, arguments = _prepared(member, epochs, batch, classes)
        drops = bool(arguments["dropout"].any())
        weights = jax.device_get(_train(arguments, rate, optimizer=optimizer, drops=drops))
        return _finished(network, weights, member)

    with ThreadPoolExecutor(THREADS) as pool:
        firsts = list(pool.map(one, [group[0] for group in groups]))
        others = list(pool.map(one, [member for group in groups for member in group[1:]]))
    rest = iter(others)
    return [t for first, group in zip(firsts, groups, strict=True) for t in (first, *(next(rest) for _ in group[1:]))]


def _side_by_side(groups, epochs, batch, optimizer, rate, classes) -> list[Trained]:
    """Each group in chunks; a short chunk repeats its last member up to a power of two, so that few sizes compile."""
    trained = []
    for group in groups:
        for begin in range(0, len(group), CHUNK):
            chunk = group[begin : begin + CHUNK]
            prepared = [_prepared(member, epochs, batch, classes) for member in chunk]
            full = 1 << (len(chunk) - 1).bit_length()
            repeated = [arguments for _, arguments in prepared] + [prepared[-1][1]] * (full - len(chunk))
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *repeated)
            drops = bool(stacked["dropout"].any())
            weights = jax.device_get(_train_chunk(stacked, rate, optimizer=optimizer, drops=drops))
            for number, ((network, _), member) in enumerate(zip(prepared, chunk, strict=True)):
                trained.append(_finished(network, [(w[number], b[number]) for w, b in weights], member))
    return trained


def _finished(network: Trained, weights: Weights, member: Member) -> Trained:
    """`network` with its trained weights, cut back to its own sizes, and its predictions."""
    own = [
        (np.array(w[: len(w0), :, : w0.shape[2]]), np.array(b[:, : b0.shape[1]]))
        for (w, b), (w0, b0) in zip(weights, network.weights, strict=True)
    ]
    trained = Trained(network.activation, own, network.mean, network.scale)
    return Trained(network.activation, own, network.mean, network.scale, trained.predict(member.x_new))


@partial(jax.jit, static_argnames=("optimizer", "drops"))
def _train(arguments, rate, *, optimizer, drops):
    return _training(arguments, rate, optimizer, drops)


@partial(jax.jit, static_argnames=("optimizer", "drops"))
def _train_chunk(arguments, rate, *, optimizer, drops):
    return jax.vmap(lambda member: _training(member, rate, optimizer, drops))(arguments)


def _training(member, rate, optimizer, drops):
    """The weights after all steps of one member; as one vector they compile and update faster than layer by layer."""
    update = {"adadelta": adadelta, "adam": adam}[optimizer]
    start, layers_of = ravel_pytree(member["weights"])
    l1, l2 = member["penalties"]

    def step(carried, now):
        (w, *moments), (number, key, rows) = carried, now
        layers, x, y, weight = layers_of(w), member["x"][rows], member["y"][rows], member["weight"][rows]
        kept = _kept(jax.random.wrap_key_data(key), layers, len(rows), member["dropout"]) if drops else None
        gradient, _ = ravel_pytree(jax.grad(_loss)(layers, x, y, weight, kept, member["is_tanh"]))
        return update(w, gradient + l1 * jnp.sign(w) + l2 * w, *moments, number + 1, rate), None

    zeros = jnp.zeros_like(start)
    steps = (jnp.arange(len(member["order"])), member["keys"], member["order"])
    return layers_of(jax.lax.scan(step, (start, zeros, zeros), steps)[0][0])


def _loss(weights, x, y, weight, kept, is_tanh):
    """Mean cross-entropy of the rows, by their weights."""
    h = x
    for layer, (w, b) in enumerate(weights):
        h = h if kept is None else h * kept[layer]
        z = (h @ w.reshape(len(w), -1)).reshape(len(h), *b.shape) + b
        h = z.max(axis=1) if b.shape[0] == 2 else jnp.where(is_tanh, jnp.tanh(z[:, 0]), jax.nn.relu(z[:, 0]))
    losses = -jnp.take_along_axis(jax.nn.log_softmax(z[:, 0]), y[:, None], axis=1)[:, 0]
    return (losses * weight).sum() / jnp.maximum(weight.sum(), 1e-6)


def _kept(key, weights, rows, dropout):
    """What dropout multiplies the inputs of each layer by: 0, or 1 / (1 - ratio), so that the mean stays."""
    sizes = [len(w) for w, _ in weights]
    bits = jax.random.bits(key, (rows, sum(sizes)), jnp.uint16)
    factors, begin = [], 0
    for size, ratio in zip(sizes, dropout, strict=True):
        stays = bits[:, begin : begin + size] >= (ratio * 65536).astype(jnp.uint16)
        factors.append(stays / (1 - ratio))
        begin += size
    return factors


def adadelta(w, g, squares, moves, step, rate, rho=0.99, epsilon=1e-8):
    """One step of ADADELTA: weights, gradient and two moments in, weights and moments out; h2o's constants."""
    squares = rho * squares + (1 - rho) * g * g
    move = g * jnp.sqrt((moves + epsilon) / (squares + epsilon))
    return w - rate * move, squares, rho * moves + (1 - rho) * move * move


def adam(w, g, mean, squares, step, rate, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """One step of Adam, the `step`-th from 1: as `adadelta`, with Keras' constants."""
    mean, squares = beta1 * mean + (1 - beta1) * g, beta2 * squares + (1 - beta2) * g * g
    corrected = rate * jnp.sqrt(1 - beta2**step) / (1 - beta1**step)
    return w - corrected * mean / (jnp.sqrt(squares) + epsilon), mean, squares


@dataclass(frozen=True)
class Task:
    """One outer fold: its training samples, and the genes of the samples to predict, whose labels are not asked for.

    Parameters
    ----------
    x, y, patients : (samples, genes), (samples,) of 0 and 1, (samples,) ids
    x_new : (new samples, genes)
    """

    x: np.ndarray
    y: np.ndarray
    patients: np.ndarray
    x_new: np.ndarray


@dataclass(frozen=True)
class Found:
    """What a search found for one task.

    Attributes
    ----------
    settings : the best, by AUC on the inner fifth
    inner_auc : (settings tried,)
    probabilities : (new samples, 2), of the best settings fitted to the whole training fold
    """

    settings: DeepNetSettings
    inner_auc: np.ndarray
    probabilities: np.ndarray


def search(
    tasks: Sequence[Task], settings_per_task: Sequence[Sequence[DeepNetSettings]], *, seed: int = 0, **training
) -> list[Found]:
    """Random search within each training fold (Urda et al. 2017, section 2.3 and table 2).

    Every task's settings are fitted to four fifths of its training patients and scored by AUC on the last fifth; the
    best are fitted again to the whole training fold. All first fits are one population, and all second fits another.
    The split of four fifths and one is assumed: the paper does not say how its search was scored.

    Parameters
    ----------
    tasks, settings_per_task : one list of settings a task
    seed : of the inner splits and the networks
    training : passed on to `train_population`
    """
    members, truths = [], []
    for number, (task, drawn) in enumerate(zip(tasks, settings_per_task, strict=True)):
        fit, stop = inner_split(task.y, task.patients, seed + number)
        truths.append(task.y[stop])
        x, y, x_new = task.x[fit], task.y[fit], task.x[stop]  # shared by the members, so no copy each
        members += [Member(x, y, x_new, settings, seed + 1000 * number + i) for i, settings in enumerate(drawn)]
    fits = iter(train_population(members, **training))
    aucs = [np.array([_auc(y, next(fits)) for _ in drawn]) for y, drawn in zip(truths, settings_per_task, strict=True)]
    chosen = [drawn[auc.argmax()] for auc, drawn in zip(aucs, settings_per_task, strict=True)]
    again = train_population(
        [Member(t.x, t.y, t.x_new, s, seed + i) for i, (t, s) in enumerate(zip(tasks, chosen, strict=True))], **training
    )
    return [Found(s, auc, fitted.probabilities) for s, auc, fitted in zip(chosen, aucs, again, strict=True)]


def _auc(y: np.ndarray, trained: Trained) -> float:
    """AUC of class 1; 0 for a network that diverged, so that it is never chosen."""
    finite = np.isfinite(trained.probabilities).all()
    return float(class_aucs(y, trained.probabilities)[0, 1]) if finite else 0.0
