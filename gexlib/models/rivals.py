"""What stands beside GeneXNet: networks for photographs (Khorshed et al. 2020, Table II), and fewer kinds of blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gexlib.models.genexnet import at_equal_parameters, folded_image, folded_side, genexnet
from gexlib.training import keras

SMALLEST_SIDE = 32  # of an image, which all four need


def vision_network(name: str, genes: int, classes: int) -> keras.Model:
    """A network of `keras.applications` on genes folded to three channels: (samples, genes) -> logits.

    No weights from photographs, an average over the last maps, one dense layer, as in the published code.

    Raises
    ------
    ValueError : the image is smaller than the network takes
    """
    side = folded_side(genes)
    if side < SMALLEST_SIDE:
        raise ValueError(f"{genes} genes fold to {side} x {side} x 3; {name} needs {SMALLEST_SIDE} x {SMALLEST_SIDE}.")
    trunk = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(side, side, 3), pooling="avg"
    )
    inputs = keras.Input((genes,))
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(trunk(folded_image(inputs, 3))), name=name)


VISION = {
    label: partial(vision_network, name)
    for label, name in {
        "ResNet-50 v2": "ResNet50V2",
        "DenseNet-121": "DenseNet121",
        "NASNetMobile": "NASNetMobile",
        "MobileNet v2": "MobileNetV2",
    }.items()
}
BLOCKS = {
    "both blocks": {},
    "dense only": {"theta_r": 0},
    "residual only": {"theta_d": 0},
    "neither": {"theta_d": 0, "theta_r": 0},
}


def blocks_network(genes: int, classes: int, *, blocks: str, plan: dict) -> keras.Model:
    """A GeneXNet of `plan` with some of its blocks alone, as wide as it takes to have the parameters of the whole."""
    if blocks == "both blocks":
        return genexnet(genes, classes, **plan)
    target = genexnet(genes, classes, **plan).count_params()
    fewer = {name: value for name, value in plan.items() if name != "theta_k"} | BLOCKS[blocks]
    return genexnet(genes, classes, **at_equal_parameters(target, genes, classes, **fewer))


def rivals_of(plan: dict, names: list[str]) -> dict[str, Callable]:
    """Networks that notebook 03 sets beside the GeneXNet of `plan`, those of `names`: (genes, classes) -> network.

    Raises
    ------
    ValueError : a name is neither of VISION nor of BLOCKS
    """
    known = VISION | {blocks: partial(blocks_network, blocks=blocks, plan=plan) for blocks in BLOCKS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no network '{unknown[0]}' to set beside; there are {', '.join(known)}.")
    return {name: known[name] for name in names}
