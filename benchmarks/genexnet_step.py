"""Time a training step of GeneXNet: against the arithmetic it holds, and against the networks for photographs.

    python benchmarks/genexnet_step.py [--genes 3567] [--repeats 5] [--vision]

Random samples, 15 classes, batches of 64, Adam, on the backend in use. The floor is the multiplications of the
convolutions and products of one step, three times those of a forward pass, at this machine's best rate for one large
product. `--vision` also times the four networks of Khorshed et al. 2020, Table II, through the same trainer (minutes,
of which most is compiling). Then Gene-CAM: all samples in one call, beside one call a sample.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from gexlib import explain
from gexlib.models.genexnet import genexnet
from gexlib.models.rivals import VISION
from gexlib.training import BatchTrainer, keras

CLASSES, BATCH, STEPS = 15, 64, 5
TWO = (True, True, False, False)
SETTINGS = {
    "GeneXNet, theta .1, .25, 16": {"theta_d": 0.1, "theta_r": 0.25, "theta_k": 16, "transitions": TWO},
    "GeneXNet, theta .25, .25, 32": {"transitions": TWO},
}


def seconds(work: Callable, repeats: int) -> list[float]:
    """Each of several runs of `work`, timed."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def best_rate() -> float:
    """Multiplications a second of one large product on this machine."""
    a = np.random.default_rng(0).standard_normal((3000, 3000)).astype(np.float32)
    return 3000**3 / min(seconds(lambda: a @ a, 5))


def multiplications(model: keras.Model) -> int:
    """Of a forward pass of one sample, in convolutions and products."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            places = int(np.prod(layer.output.shape[1:-1]))
            total += places * int(np.prod(layer.kernel.shape))
    return total


def step_seconds(build: Callable, x: np.ndarray, y: np.ndarray, repeats: int) -> tuple[BatchTrainer, list[float]]:
    """Seconds of a step, from epochs of five; the first, which compiles, is not counted."""
    trainer = BatchTrainer(build, batch=BATCH)
    history = trainer.fit(x, y, epochs=1 + repeats, seed=0)
    return trainer, [found / STEPS for found in history["seconds"][1:]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=3567)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vision", action="store_true")
    chosen = parser.parse_args()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((STEPS * BATCH, chosen.genes), dtype=np.float32)
    y = rng.integers(0, CLASSES, len(x))
    rate = best_rate()
    print(f"backend {keras.backend.backend()}; best rate {2 * rate / 1e9:.0f} GFLOPS; {chosen.genes} genes")
    ours = 0.0
    for name, setting in SETTINGS.items():
        trainer, found = step_seconds(
            lambda setting=setting: genexnet(chosen.genes, CLASSES, **setting), x, y, chosen.repeats
        )
        floor, ours = 3 * BATCH * multiplications(trainer.model) / rate, np.median(found)
        print(f"{name}, {trainer.model.count_params():,} weights: {ours:.3f} s a step ({min(found):.3f} to "
              f"{max(found):.3f}), {ours / floor:.1f} x the floor of {floor:.3f}", flush=True)  # fmt: skip
    for name, build in VISION.items() if chosen.vision else ():
        trainer, found = step_seconds(lambda build=build: build(chosen.genes, CLASSES), x, y, chosen.repeats)
        print(f"{name}, {trainer.model.count_params():,} weights: {np.median(found):.3f} s a step, "
              f"{np.median(found) / ours:.1f} x the larger GeneXNet", flush=True)  # fmt: skip
    model, few = genexnet(chosen.genes, CLASSES, **next(iter(SETTINGS.values()))), x[:32]
    explain.gene_cam(model, x, 0), explain.gene_cam(model, few[:1], 0)
    whole = min(seconds(lambda: explain.gene_cam(model, x, 0), chosen.repeats)) / len(x)
    singly = min(seconds(lambda: [explain.gene_cam(model, one[None], 0) for one in few], chosen.repeats)) / len(few)
    text = f"Gene-CAM: {1e3 * whole:.2f} ms a sample in one call, {1e3 * singly:.2f} one by one"
    print(f"{text}; {singly / whole:.1f} x as fast")


if __name__ == "__main__":
    main()
