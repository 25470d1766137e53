"""The pan-cancer convolutional networks of Mostavi et al. 2020, and the one they compare with (notebooks 02, 02b).

Every network takes genes in, (samples, genes), and gives logits, (samples, classes). Genes are folded into rows and
columns with zeros at the end. All are written with Keras layers, so that TensorFlow and JAX run them alike.
"""

from __future__ import annotations

import numpy as np

from gexlib.training import keras

POOLS = ("max2", "subsample")


def folded_shape(genes: int) -> tuple[int, int]:
    """Rows and columns that `genes` genes are folded into: 7,091 give the paper's 100 x 71."""
    columns = max(1, round(np.sqrt(0.71 * genes)))
    return -(-genes // columns), columns


def cnn_1d(
    genes: int,
    classes: int,
    *,
    kernel: int | None = None,
    filters: int = 32,
    dense: int = 128,
    pool: str = "max2",
) -> keras.Model:
    """The 1D-CNN (Mostavi et al. 2020, figure 1a): a kernel that moves by its own length.

    Such a convolution is one matrix product of the filters with the genes, `kernel` at a time, and is computed as that.

    Parameters
    ----------
    genes : inputs, padded with zeros to a multiple of `kernel`
    classes : outputs, as logits
    kernel : genes a filter sees at once; without it the columns of `folded_shape`, 71 for the paper's 7,091 genes
    filters : of the convolution
    dense : units of the fully connected layer; 0 leaves it out, as for the breast cancer subtypes
    pool : "max2", the larger of two neighbouring positions, as the text says; "subsample", every second position and
        nothing of the others, as `MaxPooling2D(1, 2)` of the published code does

    Returns
    -------
    keras.Model; 211,489 parameters at 7,091 genes and 33 classes, 10,309 without the dense layer at 5 classes

    Raises
    ------
    ValueError : a size below 1, or an unknown `pool`
    """
    kernel = folded_shape(genes)[1] if kernel is None else kernel
    _check(genes=genes, classes=classes, kernel=kernel, filters=filters)
    inputs = keras.Input((genes,))
    x = _folded(inputs, -(-genes // kernel), kernel)
    x = _pooled(_rows_by_filters(x, filters, "convolution"), pool)
    return _head(inputs, keras.layers.Flatten()(x), classes, dense, "cnn_1d")


def cnn_vanilla(
    genes: int,
    classes: int,
    *,
    kernel: int = 10,
    stride: int = 2,
    filters: int = 32,
    dense: int = 128,
) -> keras.Model:
    """The 2D-Vanilla-CNN (Mostavi et al. 2020, figure 1b): square kernels over the genes folded into an image.

    Returns
    -------
    keras.Model; 1,420,737 parameters at 7,091 genes and 33 classes, 5,721,537 with a stride of 1

    Raises
    ------
    ValueError : a size below 1, or too few genes for the kernel
    """
    rows, columns = folded_shape(genes)
    _check(genes=genes, classes=classes, kernel=kernel, stride=stride, filters=filters)
    if (min(rows, columns) - kernel) // stride < 1:
        raise ValueError(f"{genes} genes fold to {rows} x {columns}, too few for a {kernel} x {kernel} kernel.")
    inputs = keras.Input((genes,))
    x = keras.layers.Reshape((rows, columns, 1))(_folded(inputs, rows, columns))
    x = keras.layers.Conv2D(filters, kernel, strides=stride, activation="relu", name="convolution")(x)
    x = keras.layers.MaxPooling2D(2)(x)
    return _head(inputs, keras.layers.Flatten()(x), classes, dense, "cnn_vanilla")


def cnn_hybrid(genes: int, classes: int, *, filters: int = 32, dense: int = 128, pool: str = "max2") -> keras.Model:
    """The 2D-Hybrid-CNN (Mostavi et al. 2020, figure 1c): one tower sees whole rows, the other whole columns.

    Returns
    -------
    keras.Model; 362,177 parameters at 7,091 genes and 33 classes

    Raises
    ------
    ValueError : a size below 1, or an unknown `pool`
    """
    rows, columns = folded_shape(genes)
    _check(genes=genes, classes=classes, filters=filters)
    inputs = keras.Input((genes,))
    image = _folded(inputs, rows, columns)
    towers = (("rows", image), ("columns", keras.layers.Permute((2, 1))(image)))
    ends = [keras.layers.Flatten()(_pooled(_rows_by_filters(x, filters, name), pool)) for name, x in towers]
    return _head(inputs, keras.layers.Concatenate()(ends), classes, dense, "cnn_hybrid")


def cnn_3layer(
    genes: int, classes: int, *, filters: tuple[int, ...] = (64, 128, 256), dense: tuple[int, ...] = (1024, 512)
) -> keras.Model:
    """The 2D-3Layer-CNN of Lyu and Haque 2018, on the input of Mostavi et al. 2020.

    Stated: three modules of convolution, batch normalisation, activation and pooling, then two dense layers. Assumed,
    from the code of Lyu and Haque: kernels of 5, 5 and 3, the filters and widths; padding that keeps the size.

    Returns
    -------
    keras.Model; 26,211,233 trainable parameters at 7,091 genes and 33 classes

    Raises
    ------
    ValueError : a size below 1, or too few genes for three poolings
    """
    rows, columns = folded_shape(genes)
    _check(genes=genes, classes=classes, filters=min(filters), dense=min(dense))
    if min(rows, columns) < 8:
        raise ValueError(f"{genes} genes fold to {rows} x {columns}, too few for three poolings; take 90 or more.")
    layers = keras.layers
    inputs = keras.Input((genes,))
    x = layers.Reshape((rows, columns, 1))(_folded(inputs, rows, columns))
    for width, kernel in zip(filters, (5, 5, 3), strict=True):
        x = layers.Conv2D(width, kernel, padding="same")(x)
        x = layers.MaxPooling2D(2)(layers.Activation("relu")(layers.BatchNormalization()(x)))
    x = layers.Flatten()(x)
    for width in dense:
        x = layers.Dense(width, activation="relu")(x)
    return _head(inputs, x, classes, 0, "cnn_3layer")


NETWORKS = {"1D-CNN": cnn_1d, "2D-Vanilla-CNN": cnn_vanilla, "2D-Hybrid-CNN": cnn_hybrid, "2D-3Layer-CNN": cnn_3layer}


def _check(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: expected 1 or more.")


def _folded(inputs, rows: int, columns: int):
    """Genes padded with zeros at the end and folded, (samples, rows, columns)."""
    genes = inputs.shape[1]
    if genes < rows * columns:
        inputs = keras.layers.Reshape((genes, 1))(inputs)
        inputs = keras.layers.ZeroPadding1D((0, rows * columns - genes))(inputs)
    return keras.layers.Reshape((rows, columns))(inputs)


def _rows_by_filters(x, filters: int, name: str):
    """A convolution whose kernel is one whole row: (samples, rows, columns) -> (samples, rows, filters).

    The start weights are those of the convolution it stands for, whose fan-out counts every position of the kernel.
    """
    rows, columns = x.shape[1:]
    limit = float(np.sqrt(6 / (columns + columns * filters)))
    start = keras.initializers.RandomUniform(-limit, limit)
    x = keras.ops.reshape(x, (-1, columns))  # one product of two matrices is faster than one a sample
    x = keras.layers.Dense(filters, activation="relu", kernel_initializer=start, name=name)(x)
    return keras.ops.reshape(x, (-1, rows, filters))


def _pooled(x, pool: str):
    """Half the positions, rounded up: (samples, rows, filters) -> (samples, half, filters).

    Written as the maximum of two, whose gradient costs far less on a CPU than that of a pooling layer.
    """
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}; expected one of {', '.join(POOLS)}.")
    rows, filters = x.shape[1:]
    if rows % 2:
        x = keras.layers.ZeroPadding1D((0, 1))(x)  # a rectifier gives nothing below 0, so the last row stays
    pairs = keras.layers.Reshape((-(-rows // 2), 2 * filters))(x)
    first, second = pairs[:, :, :filters], pairs[:, :, filters:]
    return keras.ops.maximum(first, second) if pool == "max2" else first


def _head(inputs, x, classes: int, dense: int, name: str) -> keras.Model:
    if dense:
        x = keras.layers.Dense(dense, activation="relu", name="dense")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name=name)
