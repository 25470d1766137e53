"""Multi-layer perceptrons on gene expression (notebooks 01, 04 and 05)."""

from __future__ import annotations

from collections.abc import Sequence

from gexlib.training import keras


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
