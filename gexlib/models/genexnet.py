"""GeneXNet of Khorshed, Moustafa and Rafea 2020: dense and residual blocks over the folded transcriptome (notebook 03).

The network takes genes in, (samples, genes), pads and folds them into an image, and gives logits, (samples, classes).
All is written with Keras layers, so that TensorFlow and JAX run it and a saved model needs no code of ours to load.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd

from gexlib.training import keras

DENSE_REPEATS, RESIDUAL_REPEATS = (6, 12, 24, 16), (3, 4, 6, 3)  # of the four stages, at a theta of 1
EPSILON = 1.001e-5
TRANSITIONS = (True, True, True, False)
SMALLEST_MAP = 2  # a map of one cell localises nothing


def folded_side(genes: int, channels: int = 3) -> int:
    """Side of the square image that `genes` genes fold into, `channels` genes a pixel (142 for 60,483, section V.A)."""
    return int(np.ceil(np.sqrt(-(-genes // channels))))


def folded_image(inputs, channels: int):
    """Genes padded with zeros at the end and folded, (samples, side, side, channels)."""
    genes = inputs.shape[1]
    side = folded_side(genes, channels)
    if genes < side * side * channels:
        inputs = keras.layers.Reshape((genes, 1))(inputs)
        inputs = keras.layers.ZeroPadding1D((0, side * side * channels - genes))(inputs)
    return keras.layers.Reshape((side, side, channels), name="image")(inputs)


def gene_pixels(genes: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixel that holds each gene, (genes,) each: `channels` neighbours share a pixel."""
    side = folded_side(genes, channels)
    pixel = np.arange(genes) // channels
    return pixel // side, pixel % side


def repeats(theta: float, base: tuple[int, ...]) -> list[int]:
    """Sub-blocks of each stage, round(theta x base): the paper's theta_D and theta_R, a share of the full depth."""
    return [round(theta * number) for number in base]


def genexnet_plan(
    genes: int,
    *,
    channels: int = 3,
    theta_d: float = 0.25,
    theta_r: float = 0.25,
    theta_k: int = 32,
    stem_stride: int = 2,
    stem_pool: bool = False,
    transitions: tuple[bool, ...] = TRANSITIONS,
    residual_stride: bool = False,
) -> pd.DataFrame:
    """What each part of a GeneXNet makes of the image, before anything is built (Khorshed et al. 2020, figure 1).

    Parameters
    ----------
    genes : inputs; padded with zeros to a square of `channels` genes a pixel
    channels : genes that share a pixel; 3 as published
    theta_d, theta_r : share of the dense (6, 12, 24, 16) and residual (3, 4, 6, 3) sub-blocks of the four stages
    theta_k : growth rate of the dense blocks, and filters of the stem and of the first residual block, which double
        from stage to stage
    stem_stride, stem_pool : step of the first convolution; a pooling after it, as in the published code
    transitions : whether each stage ends in a transition that halves the map
    residual_stride : the last residual unit of a stage halves the map too, where there are two or more, as in the
        published code

    Returns
    -------
    DataFrame, index part, columns repeats, side (of the square map that leaves the part), channels, genes a cell

    Raises
    ------
    ValueError : a size is out of range, or the map would vanish; says the sizes and the nearest setting that works
    """
    plan = dict(theta_d=theta_d, theta_r=theta_r, theta_k=theta_k, stem_stride=stem_stride, stem_pool=stem_pool)
    plan |= {"channels": channels, "transitions": tuple(transitions), "residual_stride": residual_stride}
    _check(genes, plan)
    rows = list(_parts(genes, plan))
    if rows[-1][2] < 1:
        sizes = " - ".join(str(side) for part, _, side, _ in rows)
        raise ValueError(f"the map of this GeneXNet vanishes ({sizes}); {_nearest_that_works(genes, plan)}.")
    if min(channels for *_, channels in rows) < 1:
        wide = 2 ** sum(plan["transitions"])
        raise ValueError(f"theta_k={theta_k} leaves no map after the transitions; take {wide} or more, or a block.")
    table = pd.DataFrame(rows, columns=["part", "repeats", "side", "channels"]).set_index("part")
    table["genes a cell"] = (genes / table["side"] ** 2).round(1)
    return table


def genexnet(genes: int, classes: int, *, momentum: float = 0.99, **plan) -> keras.Model:
    """The network of `genexnet_plan` (Khorshed et al. 2020, section III.D, equations 1 to 5).

    Four stages, each a dense block, a residual block and a transition; every transformation G is batch normalisation,
    rectifier, convolution, in this order. The layer ``maps`` holds the feature maps f of the last block, the layer
    ``average`` their global average, ``logits`` the scores s of equation (6).

    Parameters
    ----------
    genes, classes : inputs and outputs
    momentum : of the running means that batch normalisation tests with; the default of Keras needs some 500 steps
    plan : as of `genexnet_plan`

    Raises
    ------
    ValueError : as `genexnet_plan`; or fewer than two classes
    """
    if classes < 2:
        raise ValueError(f"classes={classes}: expected 2 or more.")
    table, defaults = genexnet_plan(genes, **plan), genexnet_plan.__kwdefaults__
    plan = defaults | plan
    width = plan["theta_k"]
    inputs = keras.Input((genes,))
    x = folded_image(inputs, plan["channels"])
    x = keras.layers.ZeroPadding2D(3, name="stem_pad")(x)
    x = keras.layers.Conv2D(width, 7, strides=plan["stem_stride"], use_bias=False, name="stem_conv")(x)
    x = _normalised(x, "stem", momentum)
    if plan["stem_pool"]:
        x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(keras.layers.ZeroPadding2D(1)(x))
    for stage in range(4):
        name = f"stage{stage + 1}"
        for number in range(table["repeats"].get(f"{name} dense", 0)):
            x = _dense_layer(x, width, f"{name}_dense{number + 1}", momentum)
        units = table["repeats"].get(f"{name} residual", 0)
        for number in range(units):
            stride = 2 if plan["residual_stride"] and number == units - 1 > 0 else 1
            at = f"{name}_residual{number + 1}"
            x = _residual_unit(x, width * 2**stage, stride, number == 0, at, momentum)
        if plan["transitions"][stage]:
            x = _normalised(x, f"{name}_transition", momentum)
            x = _pointwise(x.shape[-1] // 2, f"{name}_transition_conv")(x)
            x = keras.layers.AveragePooling2D(2, name=f"{name}_transition_pool")(x)
    x = keras.layers.Activation("relu", name="maps")(_norm(momentum, "head_norm")(x))
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name="genexnet")


def at_equal_parameters(target: int, genes: int, classes: int, **plan) -> dict[str, object]:
    """`plan` with the theta_k whose network has the number of parameters nearest to `target`, for a fair ablation."""

    def parameters(theta_k):
        return genexnet(genes, classes, **plan, theta_k=theta_k).count_params()

    low = high = 2 ** sum(plan.get("transitions", TRANSITIONS))
    while parameters(high) < target:
        low, high = high, 2 * high
    while high - low > 2:  # even widths only: a transition halves them
        middle = (low + high) // 4 * 2
        low, high = (middle, high) if parameters(middle) < target else (low, middle)
    return plan | {"theta_k": min((low, high), key=lambda k: abs(parameters(k) - target))}


def split_at(model: keras.Model, block: str, classes: int) -> tuple[keras.Model, keras.Model]:
    """A copy of a GeneXNet, cut before `block`, with another last layer: genes -> maps, and maps -> logits.

    Raises
    ------
    ValueError : no such block, or an empty stage
    """
    blocks = [f"stage{number}" for number in range(1, 5)]
    if block not in [*blocks, "head"]:
        raise ValueError(f"block is {block!r}; expected one of {', '.join(blocks)} or head.")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    first = next((layer for layer in copy.layers if layer.name.startswith(block)), None)
    if first is None:
        raise ValueError(f"this GeneXNet has nothing in {block}; cut before a stage with blocks, or the head.")
    logits = keras.layers.Dense(classes, name="logits")(copy.get_layer("average").output)
    return keras.Model(copy.input, first.input, name="frozen"), keras.Model(first.input, logits, name="trained")


def _check(genes: int, plan: dict) -> None:
    for name, size in {"genes": genes, **{k: plan[k] for k in ("channels", "theta_k", "stem_stride")}}.items():
        if size < 1:
            raise ValueError(f"{name}={size}: expected 1 or more.")
    for name in ("theta_d", "theta_r"):
        if not 0 <= plan[name] <= 1:
            raise ValueError(f"{name}={plan[name]}: expected a share between 0 and 1, such as 0.25.")
    if len(plan["transitions"]) != 4:
        raise ValueError(f"transitions has {len(plan['transitions'])} entries; expected one for each of four stages.")


def _parts(genes: int, plan: dict) -> Iterator[tuple[str, int, int, int]]:
    """(part, repeats, side, channels) of every part of the network, in order."""
    side, width = folded_side(genes, plan["channels"]), plan["theta_k"]
    dense, residual = repeats(plan["theta_d"], DENSE_REPEATS), repeats(plan["theta_r"], RESIDUAL_REPEATS)
    yield "input", 1, side, plan["channels"]
    side, depth = (side - 1) // plan["stem_stride"] + 1, width
    if plan["stem_pool"]:
        side = (side - 1) // 2 + 1
    yield "stem", 1, side, depth
    for stage in range(4):
        name = f"stage{stage + 1}"
        if dense[stage]:
            depth += dense[stage] * width
            yield f"{name} dense", dense[stage], side, depth
        if residual[stage]:
            depth = 4 * width * 2**stage
            if plan["residual_stride"] and residual[stage] > 1:
                side = (side - 1) // 2 + 1 if side else 0
            yield f"{name} residual", residual[stage], side, depth
        if plan["transitions"][stage]:
            side, depth = side // 2, depth // 2
            yield f"{name} transition", 1, side, depth


def _nearest_that_works(genes: int, plan: dict) -> str:
    """The setting with the fewest changes that keeps a map of at least SMALLEST_MAP cells a side, in words."""
    last = [i for i, on in enumerate(plan["transitions"]) if on]
    fewer = [
        tuple(on and i not in last[k:] for i, on in enumerate(plan["transitions"])) for k in range(len(last), -1, -1)
    ]
    ways = product(fewer, dict.fromkeys((plan["stem_pool"], False)), dict.fromkeys((plan["residual_stride"], False)),
                   dict.fromkeys((plan["stem_stride"], 1)))  # fmt: skip
    names = ("transitions", "stem_pool", "residual_stride", "stem_stride")
    settings = [dict(zip(names, way, strict=True)) for way in ways]

    def changes(setting):
        dropped = sum(plan["transitions"]) - sum(setting["transitions"])
        return dropped + sum(setting[name] != plan[name] for name in names[1:])

    for setting in sorted(settings, key=changes):
        rows = list(_parts(genes, plan | setting))
        if rows[-1][2] >= SMALLEST_MAP:
            changed = ", ".join(f"{k}={v}" for k, v in setting.items() if v != plan[k])
            return f"{changed} keeps one of {rows[-1][2]} x {rows[-1][2]}"
    return f"no setting keeps a map of {SMALLEST_MAP} x {SMALLEST_MAP} with {genes} genes: use fewer channels"


def _norm(momentum: float, name: str):
    return keras.layers.BatchNormalization(momentum=momentum, epsilon=EPSILON, name=name)


def _normalised(x, name: str, momentum: float):
    """Batch normalisation and rectifier, the first two thirds of every transformation G."""
    return keras.layers.Activation("relu", name=f"{name}_relu")(_norm(momentum, f"{name}_norm")(x))


def _pointwise(filters: int, name: str, bias: bool = False):
    """A convolution of 1 x 1: one product of matrices, which a CPU computes faster as what it is."""
    return keras.layers.Dense(filters, use_bias=bias, name=name)


def _dense_layer(x, growth: int, name: str, momentum: float):
    """Equation (5): G of all maps so far, concatenated to them; a bottleneck of 4 x growth first."""
    y = _normalised(x, f"{name}_1", momentum)
    y = _pointwise(4 * growth, f"{name}_1_conv")(y)
    y = _normalised(y, f"{name}_2", momentum)
    y = keras.layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(y)
    return keras.layers.Concatenate(name=f"{name}_all")([x, y])


def _residual_unit(x, filters: int, stride: int, first: bool, name: str, momentum: float):
    """Equations (1) to (3): x + G(x), the mappings M and f identities.

    The first unit of a block changes the number of maps, so its M is a convolution of 1 x 1, as in the published code;
    so is every second map dropped on the way around a strided unit.
    """
    y = before = _normalised(x, f"{name}_1", momentum)
    if first:
        x = _pointwise(4 * filters, f"{name}_shortcut", bias=True)(before)
    elif stride > 1:
        x = keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut")(x)
    y = _pointwise(filters, f"{name}_1_conv")(y)
    y = _normalised(y, f"{name}_2", momentum)
    y = keras.layers.ZeroPadding2D(1, name=f"{name}_2_pad")(y)
    y = keras.layers.Conv2D(filters, 3, strides=stride, use_bias=False, name=f"{name}_2_conv")(y)
    y = _normalised(y, f"{name}_3", momentum)
    y = _pointwise(4 * filters, f"{name}_3_conv", bias=True)(y)
    return keras.layers.Add(name=f"{name}_sum")([x, y])
