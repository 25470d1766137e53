"""Time the networks of notebook 04: traits x folds in one call against a loop of keras.fit.

    python benchmarks/radiogenomic_population.py [--genes 1000] [--widths 32 16 8] [--traits 6] [--peer-fits 4]
        [--epochs 40] [--batch 32] [--repeats 2]

Both train the same classifiers (batch normalisation, tanh, dropout 0.4, Adadelta, balanced samples) for the same epochs
on 157 of 175 simulated patients, and say after every epoch what they make of all 175, since the published protocol
scores every epoch. Ours trains traits x 10 folds in one call, compiled anew each time. keras.fit trains the first fits
only, its network built and compiled for each, as a script has it; times are compared per fit. The mean AUCs of the last
epoch in the test folds stand beside the times: the start weights differ, the networks do not.
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np

from gexlib.models.radiogenomic import Fit, ImagingSettings, imaging_network, train_each
from gexlib.splits import grouped_folds
from gexlib.stopping import auc_by_epoch
from gexlib.training import keras

PATIENTS, FOLDS = 175, 10


def simulated(genes: int, traits: int):
    """Genes of 175 patients, and traits that each depend on five of them."""
    rng = np.random.RandomState(1)
    x = rng.standard_normal((PATIENTS, genes)).astype(np.float32)
    y = [(x[:, 5 * t : 5 * t + 5].sum(axis=1) + rng.standard_normal(PATIENTS) > 0).astype(int) for t in range(traits)]
    who = np.arange(PATIENTS).astype(str)
    return x, [(labels, train, test) for labels in y for _, train, test in grouped_folds(labels, who, FOLDS, seed=1)]


def ours(x, fits, settings, epochs, batch):
    """Seconds a fit, compilation counted, and the AUC of each."""
    jax.clear_caches()
    start = time.perf_counter()
    y = fits[0][0]
    asked = [Fit(train, settings, i, y=labels) for i, (labels, train, _) in enumerate(fits)]
    courses = train_each(x, y, asked, epochs=epochs, batch=batch)
    seconds = (time.perf_counter() - start) / len(fits)
    return seconds, [
        auc_by_epoch(labels[test], c.logits[-1:, test])[0] for c, (labels, _, test) in zip(courses, fits, strict=True)
    ]


class EveryEpoch(keras.callbacks.Callback):
    """What the network makes of all patients after each epoch, as the published callback of AUCs asks it."""

    def __init__(self, z):
        super().__init__()
        self.z, self.logits = z, []

    def on_epoch_end(self, epoch, logs=None):
        """Predict for all patients."""
        self.logits.append(self.model.predict(self.z, batch_size=len(self.z), verbose=0))


def kerass(x, fits, settings, epochs, batch):
    """The same by keras.fit, one after another."""
    start, aucs = time.perf_counter(), []
    for number, (labels, train, test) in enumerate(fits):
        keras.utils.set_random_seed(number)
        z = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
        model = imaging_network(x.shape[1], settings)
        model.compile(keras.optimizers.Adadelta(1.0), keras.losses.BinaryCrossentropy(from_logits=True))
        counts = np.bincount(labels[train])
        weight, said = (len(train) / 2 / counts)[labels[train]], EveryEpoch(z)
        y = labels[train][:, None]
        model.fit(z[train], y, batch, epochs, sample_weight=weight, callbacks=[said], verbose=0)
        aucs.append(auc_by_epoch(labels[test], np.array(said.logits[-1:])[:, test])[0])
    return (time.perf_counter() - start) / len(fits), aucs


def main():
    """Print seconds a fit of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("genes", 1000), ("traits", 6), ("peer-fits", 4), ("epochs", 40), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--widths", type=int, nargs=3, default=(32, 16, 8))
    parser.add_argument("--repeats", type=int, default=2)
    a = parser.parse_args()
    x, fits = simulated(a.genes, a.traits)
    settings = ImagingSettings(tuple(a.widths), dropout=0.4)
    print(f"{a.genes} genes, widths {settings.widths}, {a.epochs} epochs, batches of {a.batch}")
    for _ in range(a.repeats):
        mine, aucs = ours(x, fits, settings, a.epochs, a.batch)
        theirs, peer = kerass(x, fits[: a.peer_fits], settings, a.epochs, a.batch)
        print(
            f"ours, {len(fits)} fits: {mine:.3f} s each, AUC {np.mean(aucs):.2f}; keras.fit, {a.peer_fits} fits: ",
            end="",
        )
        print(
            f"{theirs:.2f} s each, AUC {np.mean(peer):.2f} (the same of ours {np.mean(aucs[: a.peer_fits]):.2f}); ",
            end="",
        )
        print(f"ratio {theirs / mine:.1f}")


if __name__ == "__main__":
    main()
