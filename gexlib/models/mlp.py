"""Multi-layer perceptrons on gene expression (notebooks 01, 04 and 05)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gexlib.prep import scaler
from gexlib.training import keras

ACTIVATIONS = ("rectifier", "tanh", "maxout")


def inss_network(
    genes: int,
    classes: int = 5,
    widths: Sequence[int] = (512, 256, 128, 16),
    dropout: float = 0.15,
    slope: float = 0.2,
) -> keras.Model:
    """The staging network of Park & Nam 2019 (Methods, Model construction; their figure 2).

    Stated by the paper: the four hidden widths, leaky ReLU, dropout 0.15. Assumed, from the defaults of the TensorFlow
    1.13 estimator they used: slope 0.2, dropout after every hidden layer, Glorot uniform weights and zero biases.

    Parameters
    ----------
    genes : inputs; expression on the cohort's scale
    classes : outputs, as logits: the softmax belongs to the loss
    widths, dropout, slope : hidden layers, share of units dropped in training, leaky ReLU's negative slope

    Returns
    -------
    keras.Model, (samples, genes) -> (samples, classes); 6,869,477 parameters at 13,091 genes and 5 classes
    """
    layers = keras.layers
    model = keras.Sequential([keras.Input((genes,))], name="inss_network")
    for width in widths:
        model.add(layers.Dense(width, kernel_initializer="glorot_uniform"))
        model.add(layers.LeakyReLU(negative_slope=slope))
        model.add(layers.Dropout(dropout))
    model.add(layers.Dense(classes, kernel_initializer="glorot_uniform", name="logits"))
    return model


@dataclass(frozen=True)
class DeepNetSettings:
    """One draw of Urda et al. 2017, table 2, trained by `gexlib.models.population`.

    Parameters
    ----------
    activation : "rectifier", "tanh" or "maxout" (the larger of two pieces, as in h2o)
    widths : units of each hidden layer
    l1, l2 : h2o's penalties: every step adds l1 * sign(w) + l2 * w to the gradient of every weight and bias of every
        layer, so the loss gains l1 * sum|w| + l2 / 2 * sum w^2
    input_dropout, hidden_dropout : share of the genes dropped, and of the units of each hidden layer

    Raises
    ------
    ValueError : names the setting that makes no sense
    """

    activation: str
    widths: tuple[int, ...]
    l1: float
    l2: float
    input_dropout: float
    hidden_dropout: tuple[float, ...]

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation '{self.activation}' is unknown; expected one of {', '.join(ACTIVATIONS)}.")
        if not self.widths or any(width < 1 or width != int(width) for width in self.widths):
            raise ValueError(f"widths={self.widths}: expected a layer or more of a unit or more, such as (100, 50).")
        if not (0 <= self.l1 < np.inf and 0 <= self.l2 < np.inf):
            raise ValueError(f"l1={self.l1}, l2={self.l2}: expected penalties of 0 or more.")
        if len(self.hidden_dropout) != len(self.widths):
            raise ValueError(
                f"{len(self.hidden_dropout)} hidden dropout ratios for {len(self.widths)} layers; give one a layer."
            )
        if any(not 0 <= ratio < 1 for ratio in (self.input_dropout, *self.hidden_dropout)):
            raise ValueError(
                f"dropout ratios {self.input_dropout} and {self.hidden_dropout}: expected 0 or more, and less than 1."
            )


def draw_settings(n: int, seed: int) -> list[DeepNetSettings]:
    """`n` random draws from table 2 of Urda et al. 2017, the same for the same seed everywhere.

    Stated by the paper: the ranges. Assumed: every value is uniform in its range, on a linear scale; widths and hidden
    dropout ratios are drawn anew for each layer; "Hidden dropout ratios" are those of h2o's activations "WithDropout".
    """
    rng, settings = np.random.RandomState(seed), []
    for _ in range(n):
        layers = rng.randint(2, 5)
        settings.append(
            DeepNetSettings(
                activation=ACTIVATIONS[rng.randint(3)],
                widths=tuple(int(width) for width in rng.randint(10, 201, layers)),
                l1=float(rng.uniform(0.001, 0.1)),
                l2=float(rng.uniform(0.001, 0.1)),
                input_dropout=float(rng.uniform(0.001, 0.1)),
                hidden_dropout=tuple(float(ratio) for ratio in rng.uniform(0.001, 0.1, layers)),
            )
        )
    return settings


@keras.saving.register_keras_serializable("gexlib")
class GeneSetUnits(keras.layers.Layer):
    """One tanh unit a gene set, connected to the genes of the set alone; the connections are saved with the weights."""

    def __init__(self, sets: int, **kwargs):
        super().__init__(**kwargs)
        self.sets = sets

    def build(self, input_shape):
        shape = (input_shape[-1], self.sets)
        self.kernel = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))
        self.bias = self.add_weight(shape=(self.sets,), initializer="zeros")
        self.connected = self.add_weight(shape=shape, initializer="ones", trainable=False)

    def call(self, inputs):
        return keras.ops.tanh(keras.ops.matmul(inputs, self.kernel * self.connected) + self.bias)

    def get_config(self):
        return {**super().get_config(), "sets": self.sets}


def wired_network(membership: np.ndarray, classes: int = 2, width: int = 16, dropout: float = 0.1) -> keras.Model:
    """Urda et al. 2017, conclusions: "imposing constrains ... biological knowledge", as gene sets in the first layer.

    Assumed, since the paper only proposes it: one tanh unit a set, then one small rectifier layer; a unit's weights
    start with SD 1 / sqrt(genes of its set), for z-scored genes.

    Parameters
    ----------
    membership : (genes, sets) of bool
    classes, width, dropout : outputs, as logits; units of the dense layer; share of the set units dropped

    Returns
    -------
    keras.Model, (samples, genes) -> (samples, classes)

    Raises
    ------
    ValueError : a set holds none of the genes
    """
    membership = np.asarray(membership, dtype=bool)
    sizes = membership.sum(axis=0)
    if membership.ndim != 2 or not sizes.size or not sizes.min():
        raise ValueError(f"membership is {membership.shape}; expected (genes, sets) with a gene or more in every set.")
    units = GeneSetUnits(len(sizes), name="gene_sets")
    model = keras.Sequential([keras.Input((len(membership),)), units], name="wired_network")
    model.add(keras.layers.Dropout(dropout))
    model.add(keras.layers.Dense(width, activation="relu"))
    model.add(keras.layers.Dense(classes, name="logits"))
    units.connected.assign(membership.astype(np.float32))
    units.kernel.assign(keras.ops.convert_to_numpy(units.kernel) * membership / np.sqrt(sizes))
    return model


def autoencoder_codes(
    x_train: np.ndarray, x_new: np.ndarray, width: int = 32, epochs: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Urda et al. 2017, conclusions: auto-encoders that "compress the information" of the genes into fewer variables.

    One tanh layer between the genes and their reconstruction (mean squared error on z-scored genes, Adam at 3e-3,
    batches of 32). Scaling and network see the training samples alone.

    Parameters
    ----------
    x_train, x_new : (samples, genes), on the cohort's scale
    width, epochs, seed : codes a sample, passes through the training samples, seed of the start weights

    Returns
    -------
    codes of the training and of the new samples, each (samples, width)
    """
    scaling = scaler(True).fit(x_train)
    z, z_new = (scaling.transform(x).astype(np.float32) for x in (x_train, x_new))
    model, encoder, optimizer_start = _autoencoder(z.shape[1], width)
    for layer, dense in enumerate(model.layers[1:]):
        dense.set_weights([keras.initializers.GlorotUniform(seed=seed + layer)(dense.kernel.shape), dense.bias * 0])
    for variable, start in zip(model.optimizer.variables, optimizer_start, strict=True):
        variable.assign(start)
    for _ in range(epochs):
        for first in range(0, len(z), 32):
            model.train_on_batch(z[first : first + 32], z[first : first + 32])
    return tuple(keras.ops.convert_to_numpy(encoder(values)) for values in (z, z_new))


@lru_cache(maxsize=2)
def _autoencoder(genes: int, width: int) -> tuple[keras.Model, keras.Model, list[np.ndarray]]:
    """The network of `autoencoder_codes`, compiled once for all folds; its encoder; its optimizer's start."""
    inputs = keras.Input((genes,))
    codes = keras.layers.Dense(width, activation="tanh")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(genes)(codes))
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    model.optimizer.build(model.trainable_variables)
    start = [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
    return model, keras.Model(inputs, codes), start


def compressed(fit: Callable, width: int = 32) -> Callable:
    """The recipe `fit` on the codes of `autoencoder_codes` instead of the genes."""

    def fit_compressed(x, y, patients, seed):
        def predict(new):
            codes, new_codes = autoencoder_codes(x, new, width, seed=seed)
            return fit(codes, y, patients, seed)(new_codes)

        return predict

    return fit_compressed
