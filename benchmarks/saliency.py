"""Time guided saliency of 10,000 samples, as notebook 02b needs it: ours against one call a sample.

    python benchmarks/saliency.py [--samples 10000] [--peer-samples 500]

Ours is `explain.saliency_sums` on the 1D-CNN of the paper, 7,100 genes and 34 classes: batched and compiled, with the
scaling of every map and the sums by class. The peers take one sample a call, as the library of the paper does: the
gradient in a compiled function, and in eager TensorFlow. They run on the first samples, and their time is scaled up;
neither scales or adds the maps up, which favours them. Compilation is not counted for anyone. Needs the TensorFlow
backend.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import tensorflow as tf

from gexlib.explain import saliency_sums
from gexlib.models.cnn import cnn_1d

GENES, CLASSES = 7100, 34


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--peer-samples", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((chosen.samples, GENES), dtype=np.float32)
    y = rng.integers(0, CLASSES, chosen.samples)
    model = cnn_1d(GENES, CLASSES)

    def one(sample, output):
        with tf.GradientTape() as tape:
            tape.watch(sample)
            logit = model(sample, training=False)[0, output]
        return tape.gradient(logit, sample)

    compiled = tf.function(one, reduce_retracing=True)
    first = [(tf.constant(x[i : i + 1]), tf.constant(int(y[i]))) for i in range(chosen.peer_samples)]
    saliency_sums(model, x[:1000], y[:1000])
    compiled(*first[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = {"ours": [], "compiled": [], "eager": []}
    for _ in range(chosen.repeats):
        start = time.perf_counter()
        saliency_sums(model, x, y)
        times["ours"].append(time.perf_counter() - start)
        for name, gradient in (("compiled", compiled), ("eager", one)):
            start = time.perf_counter()
            for sample in first:
                gradient(*sample)
            times[name].append((time.perf_counter() - start) / len(first) * chosen.samples)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    ours = np.median(times["ours"])
    print(f"{chosen.samples:,} samples: ours {ours:.2f} s ({min(times['ours']):.2f} to {max(times['ours']):.2f}), "
          f"memory grew by {grown:.0f} MiB")  # fmt: skip
    for name in ("compiled", "eager"):
        theirs = np.median(times[name])
        print(f"one {name} call a sample: {theirs:.1f} s ({min(times[name]):.1f} to {max(times[name]):.1f}), "
              f"ours {theirs / ours:.0f} x as fast")  # fmt: skip


if __name__ == "__main__":
    main()
