"""Time gene masking as notebook 04b needs it: 5,000 gene sets x 175 patients, ours against one prediction a set.

    python benchmarks/gene_masking.py [--sets 5000] [--peer-sets 50] [--repeats 3]

Random networks of the shapes of Smedley et al. 2020 (12,042 genes; 4000-2000-1000 and 1000-500-250 units) and random
sets of 15 to 500 genes, as many small as large ones on a log scale. Ours is `Course.masked`: the kept rows of the first
layer's weights, then thousands of masked patients through the other layers at once. The peer is the published loop:
copy the patients, zero the other genes, `predict` with the same network in Keras. It runs on the first sets, and its
time is scaled up. Compilation is not counted for either; the answers are compared. The bar: 20 times as fast. Only the
first layer is spared: what arithmetic allows, the multiplications of a full pass over those of a masked one, is printed
beside the ratio.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from gexlib.models.radiogenomic import Course, ImagingSettings
from gexlib.training import keras

GENES, PATIENTS = 12_042, 175
WIDTHS = [(1000, 500, 250), (4000, 2000, 1000)]


def random_network(widths: tuple[int, ...], rng: np.random.Generator) -> Course:
    """A network that nobody trained: masking takes as long."""
    sizes = [GENES, *widths, 1]
    dense = [
        (rng.standard_normal((a, b), dtype=np.float32) / np.float32(a**0.5), np.zeros(b, np.float32))
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]
    norms = [
        (np.ones(n, np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32), np.ones(n, np.float32))
        for n in widths
    ]
    logits, scale = np.zeros((1, PATIENTS, 1), np.float32), np.ones(GENES, np.float32)
    return Course(logits, 0, dense, norms, scale * 0, scale, ImagingSettings(widths))


def naive(model, z: np.ndarray, sets: list[np.ndarray]) -> np.ndarray:
    """One prediction a set, as published."""
    found = []
    for genes in sets:
        kept = np.zeros_like(z)
        kept[:, genes] = z[:, genes]
        found.append(model.predict(kept, batch_size=PATIENTS, verbose=0))
    return np.stack(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=5000)
    parser.add_argument("--peer-sets", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((PATIENTS, GENES), dtype=np.float32)
    sizes = np.exp(rng.uniform(np.log(15), np.log(500), chosen.sets)).astype(int)
    sets = [rng.choice(GENES, size, replace=False) for size in sizes]
    for widths in WIDTHS:
        course = random_network(widths, rng)
        model, some = course.network(), sets[: chosen.peer_sets]
        difference = np.abs(course.masked(x, some) - naive(model, x, some)).max()
        course.masked(x, sets[: min(200, len(sets))])  # compiles the shape of a full pass
        ours, theirs = [], []
        for _ in range(chosen.repeats):
            start = time.perf_counter()
            naive(model, x, some)
            theirs.append((time.perf_counter() - start) / len(some) * len(sets))
            start = time.perf_counter()
            course.masked(x, sets)
            ours.append(time.perf_counter() - start)
        rest = sum(a * b for a, b in zip(widths, [*widths[1:], 1], strict=True))
        allowed = (GENES * widths[0] + rest) / (sizes.mean() * widths[0] + rest)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{GENES:,} genes, {widths}, {len(sets):,} sets x {PATIENTS} patients, {keras.backend.backend()}: "
              f"ours {np.median(ours):.1f} s ({min(ours):.1f} to {max(ours):.1f}), one prediction a set "
              f"{np.median(theirs):.0f} s ({min(theirs):.0f} to {max(theirs):.0f}, scaled up from {len(some)}), "
              f"{np.median(theirs) / np.median(ours):.1f} x (arithmetic allows {allowed:.0f} x); "
              f"answers differ by {difference:.1g} at most; "
              f"peak memory {grown:.1f} GiB", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
