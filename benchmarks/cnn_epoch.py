"""Time an epoch of the pan-cancer networks of notebook 02: our compiled epoch against `fit` of Keras.

    python benchmarks/cnn_epoch.py [--networks 1D-CNN 2D-Hybrid-CNN] [--repeats 5]
    KERAS_BACKEND=jax python benchmarks/cnn_epoch.py --peer SECONDS

8,800 simulated samples x 7,100 genes, 33 classes, batches of 128, Adam. The peer builds the 1D-CNN with Conv1D and
MaxPooling1D, the layers a reader of the paper would take, and calls plain `fit`; for the other networks it is `fit` on
the same model. Runs alternate; the first epoch of each, which compiles, is not counted. Beside them the floor: the
products of matrices that an epoch of the 1D-CNN needs, at the best rate of one large product on this machine.
With `--peer` the ratio is taken to the seconds that another backend's `fit` took in a run just before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from gexlib.models.cnn import NETWORKS
from gexlib.training import BatchTrainer, keras

SAMPLES, GENES, CLASSES, BATCH = 8800, 7100, 33, 128


def as_written() -> keras.Model:
    """The 1D-CNN with the layers of its description."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input((GENES, 1)), layers.Conv1D(32, 71, strides=71, activation="relu"), layers.MaxPooling1D(2),
        layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(CLASSES),
    ])  # fmt: skip


def floor_seconds() -> float:
    """Seconds that the multiplications of one epoch of the 1D-CNN take at this machine's best rate."""
    a = np.random.default_rng(0).standard_normal((3000, 3000)).astype(np.float32)
    best = min(_seconds(lambda: a @ a) for _ in range(5))
    convolution, dense = 100 * 71 * 32, 1600 * 128 + 128 * CLASSES
    products = SAMPLES * (2 * convolution + 3 * dense)  # forward and the weights' gradient; dense layers pass one back
    return products / (3000**3 / best)


def _seconds(work: Callable) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, x: np.ndarray, y: np.ndarray, repeats: int, epochs: int) -> tuple[list[float], list[float]]:
    """Seconds an epoch of ours and of plain `fit`, alternating; each call runs `epochs`."""
    trainer = BatchTrainer(lambda: NETWORKS[name](GENES, CLASSES), batch=BATCH)
    plain = as_written() if name == "1D-CNN" else trainer.build()
    plain.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fed = x.reshape(*x.shape, 1) if name == "1D-CNN" else x
    trainer.fit(x, y, epochs=1, seed=0)
    plain.fit(fed, y, epochs=1, batch_size=BATCH, verbose=0)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(_seconds(lambda: trainer.fit(x, y, epochs=epochs, seed=0)) / epochs)
        theirs.append(_seconds(lambda: plain.fit(fed, y, epochs=epochs, batch_size=BATCH, verbose=0)) / epochs)
    return ours, theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["1D-CNN"], choices=NETWORKS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="in one timed call of ours and of fit")
    parser.add_argument("--peer", type=float, help="seconds an epoch of fit, from a run on another backend")
    chosen = parser.parse_args()
    rng = np.random.default_rng(1)
    y = rng.integers(0, CLASSES, SAMPLES)
    x = rng.standard_normal((SAMPLES, GENES), dtype=np.float32)
    x += 0.3 * rng.standard_normal((CLASSES, GENES), dtype=np.float32)[y]
    floor = floor_seconds()
    print(f"backend {keras.backend.backend()}; floor of the 1D-CNN {floor:.3f} s an epoch")
    for name in chosen.networks:
        ours, theirs = compare(name, x, y, chosen.repeats, chosen.epochs)
        one, other = np.median(ours), chosen.peer or np.median(theirs)
        text = f"{name}: ours {one:.3f} s an epoch ({min(ours):.3f} to {max(ours):.3f}), fit {np.median(theirs):.3f} "
        text += f"({min(theirs):.3f} to {max(theirs):.3f}); {other / one:.1f} x as fast"
        print(text + (f", {one / floor:.1f} x the floor" if name == "1D-CNN" else ""), flush=True)


if __name__ == "__main__":
    main()
