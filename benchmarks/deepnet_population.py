"""Time a DeepNet fit of notebook 05: our population against a loop of keras.fit and against h2o.

    python benchmarks/deepnet_population.py [--folds 10] [--peer-folds 2] [--epochs 10] [--batch 32]
        [--penalties drawn] [--peers keras]

All three train the same six configurations for the same epochs on the same simulated training sets of the paper's shape
(1,090 samples x 275 genes, about 16 % cases, a weak and mostly linear signal) and predict 2,000 further samples. Ours
trains all folds at once, and its time holds compilation and predictions; the peers train the first folds only, one
fit after another, and times are compared per fit. h2o is skipped where it is not installed (pip install h2o; it needs
Java), and its start and the upload of the data are not counted.

h2o steps after every sample (mini_batch_size 1), we and keras.fit after `--batch` of them, so the networks are the same
in expectation only; hence the mean test AUCs beside the times. For equal epochs h2o's early stopping and its return to
the best model seen are switched off. Activations, widths and dropout are drawn from table 2 of Urda et al. 2017.
Penalties are the smallest of that table, 0.001: under larger ones h2o's 10,900 steps make constants of most networks,
and the AUCs compare nothing. `--penalties drawn` shows that, and that our 350 steps do not shrink them as far; with
`--batch 1` they do.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import jax
import numpy as np
from sklearn.metrics import roc_auc_score

from gexlib.models.mlp import draw_settings
from gexlib.models.population import Member, train_population
from gexlib.prep import scaler
from gexlib.training import keras

GENES, TRAIN, TEST = 275, 1090, 2000


def simulated_fold(seed: int):
    """x, y, x_new, y_new: twelve co-expression modules, 60 genes with a small effect, one product of two genes."""
    fixed, rng = np.random.RandomState(1), np.random.RandomState(seed)
    effects = np.where(np.arange(GENES) < 60, 0.16 * fixed.standard_normal(GENES), 0)
    x = rng.standard_normal((TRAIN + TEST, 12)) @ (0.35 * fixed.standard_normal((12, GENES)))
    x += rng.standard_normal(x.shape)
    logit = x @ effects + 0.15 * x[:, 0] * x[:, 1] - 2.4
    y = (rng.random_sample(len(x)) < 1 / (1 + np.exp(-logit))).astype(int)
    x = (7 + 1.3 * x).astype(np.float32)
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def ours(folds, settings, epochs, batch):
    """Seconds a fit, and AUC (folds, settings); compiled anew."""
    jax.clear_caches()
    start = time.perf_counter()
    members = [Member(x, y, x_new, s, i) for x, y, x_new, _ in folds for i, s in enumerate(settings)]
    trained = iter(train_population(members, epochs=epochs, batch=batch))
    seconds = (time.perf_counter() - start) / len(members)
    return seconds, np.array(
        [[roc_auc_score(f[3], next(trained).probabilities[:, 1]) for _ in settings] for f in folds]
    )


def keras_network(settings):
    """The same network and penalties, in Keras layers."""
    layers, penalty = keras.layers, keras.regularizers.L1L2(settings.l1, settings.l2 / 2)
    penalties = {"kernel_regularizer": penalty, "bias_regularizer": penalty}
    h = inputs = keras.Input((GENES,))
    h = layers.Dropout(settings.input_dropout)(h)
    for number, (width, ratio) in enumerate(zip(settings.widths, settings.hidden_dropout, strict=True)):
        bias = 0.0 if settings.activation == "tanh" else (0.5 if number == 0 else 1.0)
        pieces = 2 if settings.activation == "maxout" else 1
        bound = np.sqrt(6 / (h.shape[-1] + width))
        drawn = keras.initializers.RandomUniform(-bound, bound)
        start = {"kernel_initializer": drawn, "bias_initializer": keras.initializers.Constant(bias)}
        h = layers.Dense(pieces * width, **start, **penalties)(h)
        if pieces == 2:
            h = keras.ops.max(layers.Reshape((2, width))(h), axis=1)
        else:
            h = layers.Activation("tanh" if settings.activation == "tanh" else "relu")(h)
        h = layers.Dropout(ratio)(h)
    bound = 4 * np.sqrt(6 / (h.shape[-1] + 2))
    drawn = keras.initializers.RandomUniform(-bound, bound)
    return keras.Model(inputs, layers.Dense(2, kernel_initializer=drawn, **penalties)(h))


def keras_loop(folds, settings, epochs, batch):
    """Seconds of each fit, and AUC, both (folds, settings)."""
    seconds, aucs = np.zeros((2, len(folds), len(settings)))
    for f, (x, y, x_new, y_new) in enumerate(folds):
        for i, s in enumerate(settings):
            start = time.perf_counter()
            keras.utils.set_random_seed(i)
            scaling = scaler(True).fit(x)
            network = keras_network(s)
            network.compile(
                keras.optimizers.Adadelta(1.0, rho=0.99, epsilon=1e-8),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
            network.fit(scaling.transform(x), y, batch_size=batch, epochs=epochs, verbose=0)
            logits = network.predict(scaling.transform(x_new), batch_size=TEST, verbose=0)
            seconds[f, i] = time.perf_counter() - start
            aucs[f, i] = roc_auc_score(y_new, logits[:, 1] - logits[:, 0])
            keras.backend.clear_session()
    return seconds, aucs


def h2o_loop(folds, settings, epochs, batch):
    """As `keras_loop`, whatever `batch` is: h2o steps after every sample. None where h2o is not installed."""
    try:
        import h2o
        from h2o.estimators import H2ODeepLearningEstimator
    except ImportError:
        return None
    h2o.init(nthreads=2, max_mem_size="3G", verbose=False)
    h2o.no_progress()
    seconds, aucs = np.zeros((2, len(folds), len(settings)))
    for f, (x, y, x_new, y_new) in enumerate(folds):
        train, test = (h2o.H2OFrame(np.column_stack([a, b]).tolist()) for a, b in ((x, y), (x_new, y_new)))
        train[GENES] = train[GENES].asfactor()
        for i, s in enumerate(settings):
            start = time.perf_counter()
            network = H2ODeepLearningEstimator(
                activation=s.activation.capitalize() + "WithDropout",
                hidden=list(s.widths),
                l1=s.l1,
                l2=s.l2,
                input_dropout_ratio=s.input_dropout,
                hidden_dropout_ratios=list(s.hidden_dropout),
                epochs=epochs,
                stopping_rounds=0,
                overwrite_with_best_model=False,
                seed=i + 1,
            )
            network.train(x=train.columns[:GENES], y=train.columns[GENES], training_frame=train)
            guess = network.predict(test).as_data_frame().to_numpy()[:, 2].astype(float)
            seconds[f, i] = time.perf_counter() - start
            aucs[f, i] = roc_auc_score(y_new, guess)
    h2o.cluster().shutdown()
    return seconds, aucs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("folds", 10), ("peer-folds", 2), ("epochs", 10), ("batch", 32), ("repeats", 3), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--penalties", choices=["smallest", "drawn"], default="smallest")
    parser.add_argument("--peers", nargs="+", choices=["keras", "h2o"], default=["keras", "h2o"])
    options = parser.parse_args()
    settings = draw_settings(6, options.seed)
    if options.penalties == "smallest":
        settings = [replace(s, l1=0.001, l2=0.001) for s in settings]
    folds = [simulated_fold(seed) for seed in range(options.folds)]
    few = folds[: options.peer_folds]

    for s in settings:
        print(f"{s.activation:9} {str(s.widths):22} l1 {s.l1:.4f} l2 {s.l2:.4f}")
    print(f"{np.mean([y.mean() for _, y, *_ in folds]):.1%} cases, {options.epochs} epochs, batch {options.batch}\n")
    runs = [ours(folds, settings, options.epochs, options.batch) for _ in range(options.repeats)]
    mine, mine_aucs = np.median([seconds for seconds, _ in runs]), runs[0][1]
    spread = ", ".join(f"{seconds:.3f}" for seconds, _ in runs)
    print(f"ours  {mine:7.3f} s a fit, compilation included (median of {spread}; {mine_aucs.size} fits each)")
    print(f"      AUC by configuration {mine_aucs.mean(axis=0).round(3)}, mean {mine_aucs.mean():.4f} (all folds)")
    same = mine_aucs[: len(few)].mean()
    loops = {"keras": keras_loop, "h2o": h2o_loop}
    for name in options.peers:
        found = loops[name](few, settings, options.epochs, options.batch)
        if found is None:
            print(f"{name:5} skipped: not installed (pip install {name}, with Java 8 to 17)")
            continue
        seconds, aucs = found
        spread = f"median {np.median(seconds):.2f}, {seconds.min():.2f} to {seconds.max():.2f}"
        print(f"{name:5} {seconds.mean():7.3f} s a fit ({spread}; {seconds.size} fits)")
        print(f"      AUC by configuration {aucs.mean(axis=0).round(3)}, mean {aucs.mean():.4f}")
        ratios = f"{seconds.mean() / mine:.1f} times faster (by the median fit {np.median(seconds) / mine:.1f})"
        print(f"      ours is {ratios}; ours minus {name} in AUC, same folds: {same - aucs.mean():+.4f}")


if __name__ == "__main__":
    main()
