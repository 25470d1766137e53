"""Training: one quiet import of Keras, seeds and threads, and training compiled once a shape.

Other modules take `keras` from here, so that the framework is loaded in one place: without its start-up messages, on
a fixed number of threads, and without claiming all the memory of a GPU.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pandas as pd
from sklearn.base import TransformerMixin, clone
from sklearn.preprocessing import FunctionTransformer

from gexlib.evaluate import among, asked, fitted, shuffled
from gexlib.prep import LowInformationFilter, scaler
from gexlib.splits import inner_split

THREADS = 2  # results repeat to the bit at one thread count and differ between two
MANY_WEIGHTS = 40  # arrays of weights; to compile a step of each takes TensorFlow as long as all else
STARTS_KEPT = 2**26  # bytes of first weights that a trainer keeps for seeds that come again
OPTIMIZERS = ("Adam", "Adagrad", "RMSprop")
LOWEST_RATE = 1e-5  # of a learning rate that is halved


@contextmanager
def _quiet_start():
    """Silence what native libraries write to stderr while they load."""
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def _load_keras():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with _quiet_start():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")  # it warns of retracing, which a new shape needs
            try:
                tf.config.threading.set_intra_op_parallelism_threads(THREADS)
                tf.config.threading.set_inter_op_parallelism_threads(THREADS)  # the two gradients of a convolution
                for gpu in tf.config.list_physical_devices("GPU"):
                    tf.config.experimental.set_memory_growth(gpu, True)
            except RuntimeError:  # TensorFlow is already at work in this process: its settings stay
                pass
    return keras


keras = _load_keras()


class Trainer:
    """A classifier network, compiled once and trained many times on matrices of one shape.

    Every step sees all samples (full batch), as the estimator of Park & Nam does when no batch size is passed.

    Parameters
    ----------
    build : makes the untrained network, (samples, genes) -> (samples, classes) logits
    learning_rate : of Adam
    rows : samples are padded to this number with rows of weight 0, so that folds of unequal size share one compilation
    optimizer : one of OPTIMIZERS

    Raises
    ------
    ValueError : an unknown optimizer
    """

    def __init__(self, build: Callable[[], keras.Model], learning_rate: float, rows: int = 0, optimizer: str = "Adam"):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {optimizer!r}; expected one of {', '.join(OPTIMIZERS)}.")
        self.build, self.learning_rate, self.rows = build, learning_rate, rows
        self.model = build()
        self.optimizer = getattr(keras.optimizers, optimizer)(learning_rate)
        self._vector = _weight_vector(self.model)
        self.optimizer.build(self.model.trainable_variables if self._vector is None else [self._vector])
        self._optimizer_start = [keras.ops.convert_to_numpy(v) for v in self.optimizer.variables]
        self._starts: dict[int, list[np.ndarray]] = {}
        self._advance = self._compile()

    def _compile(self) -> Callable:
        return _compiled(self.model, self.optimizer, self._vector, tensorflow=_tensorflow_steps, jax=_jax_steps)

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        steps: int,
        seed: int,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        patience: int = 6,
        check_every: int = 10,
    ) -> dict[str, list[float]]:
        """Train from fresh weights; with `validation`, stop early and return to the best weights.

        Parameters
        ----------
        x : (samples, genes) float32
        y : (samples,) class numbers from 0
        steps : full-batch steps, at most
        seed : of the weights and of dropout
        validation : x and y of patients kept out of the steps; the loss on them decides when to stop
        patience : checks without a better validation loss before training stops
        check_every : steps between two checks

        Returns
        -------
        dict with, for each check, ``step``, training ``loss`` (with dropout) and, where asked for, ``validation``
        """
        self._start_again(seed)
        x, y, weight = self._padded(x, y)
        history: dict[str, list[float]] = {"step": [], "loss": []}
        best, best_weights, waited, done = np.inf, None, 0, 0
        while done < steps:
            chunk = min(check_every, steps - done)
            loss = self._advance(x, y, weight, chunk)
            done += chunk
            history["step"].append(done)
            history["loss"].append(float(loss))
            if validation is None:
                continue
            current = log_loss_of(self.predict(validation[0]), validation[1])
            history.setdefault("validation", []).append(current)
            if current < best:
                best, best_weights, waited = current, self.model.get_weights(), 0
            elif (waited := waited + 1) >= patience:
                break
        if best_weights is not None:
            self.model.set_weights(best_weights)
        return history

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities, (samples, classes)."""
        return softmax(keras.ops.convert_to_numpy(self.model(np.asarray(x, dtype=np.float32), training=False)))

    def _start_again(self, seed: int, start: list[np.ndarray] | None = None) -> None:
        random.seed(seed)  # whence Keras draws the seeds of layers; its set_random_seed also drops compiled programs
        if start is None:
            for variable, fresh in zip(self.model.variables, self._fresh_values(seed), strict=True):
                variable.assign(fresh)
        else:
            self.model.set_weights(start)
        for variable, start in zip(self.optimizer.variables, self._optimizer_start, strict=True):
            variable.assign(start)

    def _fresh_values(self, seed: int) -> list[np.ndarray]:
        """What training with a seed starts from; kept while it is small, since building a network takes long."""
        if seed in self._starts:
            return self._starts[seed]
        fresh = [keras.ops.convert_to_numpy(variable) for variable in self.build().variables]
        if sum(values.nbytes for values in fresh) * (len(self._starts) + 1) <= STARTS_KEPT:
            self._starts[seed] = fresh
        return fresh

    def _padded(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        short = max(self.rows - len(x), 0)
        weight = np.ones(len(x), dtype=np.float32)
        x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.int32)
        if short:
            x = np.pad(x, ((0, short), *[(0, 0)] * (x.ndim - 1)))
        return x, np.pad(y, (0, short)), np.pad(weight, (0, short))


class BatchTrainer(Trainer):
    """A classifier network trained in batches, each epoch one compiled program; compiled once for many trainings.

    As `keras.Model.fit` does it, with Adam and a fresh order of samples every epoch, but without a call of Python a
    batch (Mostavi et al. 2020, section 2.4: batches of 128, Adam at 0.001).

    Parameters
    ----------
    build, learning_rate, rows, optimizer : as of `Trainer`
    batch : samples a step
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        learning_rate: float = 1e-3,
        rows: int = 0,
        batch: int = 128,
        optimizer: str = "Adam",
    ):
        super().__init__(build, learning_rate, rows, optimizer)
        self.batch = batch

    def _compile(self) -> Callable:
        return _compiled(self.model, self.optimizer, self._vector, tensorflow=_tensorflow_epoch, jax=_jax_epoch)

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        epochs: int,
        seed: int,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        stop_on: str = "",
        patience: int = 4,
        halve_after: int = 0,
        start: list[np.ndarray] | None = None,
    ) -> dict[str, list[float]]:
        """Train from fresh weights, or from those of `start`.

        Parameters
        ----------
        x : (samples, genes) float32, or what else the network takes
        y : (samples,) class numbers from 0
        epochs : at most
        seed : of the weights, of the order of samples and of dropout
        validation : x and y that take no part in the steps; the loss and accuracy on them are recorded
        stop_on : "training accuracy" ends when that has not risen for `patience` epochs, as published; "validation
            loss" ends when that has not fallen, and returns to the best weights; "" runs all epochs
        halve_after : epochs without a better loss (of validation, where there is one) after which the learning rate is
            halved, down to LOWEST_RATE (Khorshed et al. 2020, section V.C); 0 leaves it
        start : weights to begin with, as `model.get_weights()` gives them

        Returns
        -------
        dict with, for each epoch, its number, training ``loss`` and ``accuracy`` (running, as `fit` of Keras reports
        them), its ``seconds`` (the first also compiles) and, where asked for, ``validation loss`` and ``validation
        accuracy``

        Raises
        ------
        ValueError : an unknown `stop_on`, or no validation samples to stop on
        """
        if stop_on not in ("", "training accuracy", "validation loss"):
            raise ValueError(f"stop_on is {stop_on!r}; expected training accuracy, validation loss or nothing.")
        if stop_on == "validation loss" and validation is None:
            raise ValueError("stop_on is 'validation loss', but there are no validation samples; pass validation.")
        self._start_again(seed, start)
        rng, n = np.random.default_rng(seed), len(x)
        x, y, _ = self._padded(x, y)
        x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
        history: dict[str, list[float]] = {"epoch": []}
        best, best_weights, waited = np.inf, None, 0
        lowest, since = np.inf, 0
        for epoch in range(1, epochs + 1):
            began = time.perf_counter()
            loss, right = self._advance(x, y, *_batches(rng.permutation(n), self.batch, len(x)))
            found = {"epoch": epoch, "loss": float(loss) / n, "accuracy": float(right) / n}
            found["seconds"] = time.perf_counter() - began
            if validation is not None:
                said = self.predict(validation[0])
                found["validation loss"] = log_loss_of(said, validation[1])
                found["validation accuracy"] = float((said.argmax(axis=1) == validation[1]).mean())
            for name, value in found.items():
                history.setdefault(name, []).append(value)
            watched = found.get("validation loss", found["loss"])
            lowest, since = (watched, 0) if watched < lowest else (lowest, since + 1)
            if halve_after and since >= halve_after:
                rate = float(self.optimizer.learning_rate)
                self.optimizer.learning_rate, since = min(rate, max(rate / 2, LOWEST_RATE)), 0
            current = -found["accuracy"] if stop_on == "training accuracy" else found.get(stop_on, -epoch)
            if current < best:
                best, waited = current, 0
                best_weights = self.model.get_weights() if stop_on == "validation loss" else None
            elif (waited := waited + 1) >= patience:
                break
        if best_weights is not None:
            self.model.set_weights(best_weights)
        return history

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities, (samples, classes); in batches of one size, so that memory is bounded."""
        return softmax(outputs_of(self.model, x))


def outputs_of(model: keras.Model, x: np.ndarray, batch: int = 256) -> np.ndarray:
    """What a network gives for samples, (samples, …), in test mode; the last batch is padded to the size of all."""
    parts = []
    for start in range(0, len(x), batch):
        part = np.asarray(x[start : start + batch], dtype=np.float32)
        padded = np.pad(part, ((0, batch - len(part)), *[(0, 0)] * (part.ndim - 1)))
        parts.append(model.predict_on_batch(padded)[: len(part)])
    return np.concatenate(parts)


def _batches(order: np.ndarray, batch: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.int32]:
    """Samples in `order` cut into batches: row numbers and weights, (batches, batch), and how many batches are used.

    The last batch is filled up with samples of weight 0, and the arrays to the number of batches that `rows` need.
    """
    used = -(-len(order) // batch)
    size = -(-rows // batch) * batch
    numbers = np.resize(order, size).astype(np.int32).reshape(-1, batch)
    weights = (np.arange(size) < len(order)).astype(np.float32).reshape(-1, batch)
    return numbers, weights, np.int32(used)


def network_recipe(trainer: Trainer, steps: int, *, scale: bool, stop_early: bool) -> Callable:
    """A fitting recipe (x, y, patients, seed) -> predict, for `evaluate.predictions`.

    With `scale`, genes are z-scored by the training samples; with `stop_early`, a fifth of the training patients
    decides when to stop. Both stay inside the samples the recipe is given.
    """

    def fit(x, y, patients, seed):
        scaling = scaler(scale).fit(x)
        z, held_out = scaling.transform(x), None
        if stop_early:
            rows, stop = inner_split(y, patients, seed)
            z, y, held_out = z[rows], y[rows], (z[stop], y[stop])
        trainer.fit(z, y, steps=steps, seed=seed, validation=held_out, check_every=max(5, steps // 60))
        weights = trainer.model.get_weights()

        def predict(x):
            trainer.model.set_weights(weights)  # the trainer may have learned another fold since
            return trainer.predict(scaling.transform(x))

        return predict

    return fit


def batch_recipe(
    trainer: BatchTrainer,
    epochs: int,
    *,
    protocol: str,
    patience: int = 4,
    gene_filter: LowInformationFilter | None = None,
) -> Callable:
    """A fitting recipe (x, y, patients, seed) -> predict for the networks of Mostavi et al. 2020.

    `as_published` trains on all samples it is given until the training accuracy has not risen for `patience` epochs;
    `corrected` masks uninformative genes, keeps a fifth of the patients out to decide when to stop, and returns to the
    best weights. Both stay inside the samples the recipe is given. The predictor keeps its `weights` and `genes`, those
    that passed the filter, so that the network can be explained later.
    """

    def fit(x, y, patients, seed):
        mask = clone(gene_filter).fit(x) if gene_filter is not None else FunctionTransformer()
        x, held_out, stop_on = mask.transform(x), None, "training accuracy"
        if protocol == "corrected":
            rows, stop = inner_split(y, patients, seed)
            x, y, held_out, stop_on = x[rows], y[rows], (x[stop], y[stop]), "validation loss"
        trainer.fit(x, y, epochs=epochs, seed=seed, validation=held_out, stop_on=stop_on, patience=patience)
        return TrainedNetwork(trainer, trainer.model.get_weights(), mask)

    return fit


def steps_recipe(
    trainer: BatchTrainer,
    steps: int,
    *,
    scale: bool = False,
    start: list[np.ndarray] | None = None,
    halve_after: int = 0,
) -> Callable:
    """A fitting recipe (x, y, patients, seed) -> predict: about `steps` steps, however few the samples.

    Parameters
    ----------
    trainer : of a network for genes, or for the maps that a frozen part gives (`genexnet.split_at`)
    steps : rounded up to whole epochs
    scale : z-score each gene by the samples the recipe is given
    start, halve_after : as of `BatchTrainer.fit`
    """

    def fit(x, y, patients, seed):
        scaling = scaler(scale).fit(x)
        epochs = -(-steps // -(-len(y) // trainer.batch))
        trainer.fit(scaling.transform(x), y, epochs=epochs, seed=seed, start=start, halve_after=halve_after)
        return TrainedNetwork(trainer, trainer.model.get_weights(), scaling, classes=int(y.max()) + 1)

    return fit


def settle_batch_norm(model: keras.Model, x: np.ndarray, batch: int = 128) -> None:
    """Measure anew, on training samples, the means and variances that batch normalisation tests with; in place.

    While a network trains they are running means that lag behind its weights, the more so the fewer the steps; a loss
    on test samples can be high for that alone. Weights do not move. A last batch under half the size is left out.

    Raises
    ------
    ValueError : fewer samples than half a batch
    """
    if len(x) <= batch // 2:
        raise ValueError(f"{len(x)} samples are fewer than half a batch of {batch}; take a smaller batch.")
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for number, first in enumerate(range(0, len(x) - batch // 2, batch)):
        for layer in norms:
            layer.momentum = number / (number + 1)  # of equal batches so far, the plain mean
        model(np.asarray(x[first : first + batch], np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def trained_on_parts(
    build: Callable,
    data,
    parts: Iterable[tuple] | None = None,
    *,
    protocol: str,
    epochs: int,
    batch: int = 128,
    gene_filter: LowInformationFilter | None = None,
    shuffle: bool = False,
    seed: int = 0,
) -> tuple[list[TrainedNetwork], np.ndarray]:
    """Networks of one build for every training part; and what they say of the test samples.

    They are compiled once, and so are those of later calls with the same `build` on data of the same size.

    Parameters
    ----------
    build : (genes, classes) -> untrained network
    data : has X, y, patients, parts and classes, as the notebooks of study 02 lay out a task
    parts : in place of the data's own
    protocol, epochs, gene_filter : as of `batch_recipe`; `as_published` has no filter here
    shuffle : train on permuted labels, as a control

    Returns
    -------
    the networks, and probabilities (repeats, samples, classes) as `evaluate.predictions` gives them
    """
    parts = list(data.parts if parts is None else parts)
    trainer = _trainer(build, data.X.shape[1], data.classes, len(data.y), batch)
    gene_filter = gene_filter if protocol == "corrected" else None
    recipe = batch_recipe(trainer, epochs, protocol=protocol, gene_filter=gene_filter)
    models = fitted(shuffled(recipe) if shuffle else recipe, data.X, data.y, data.patients, parts, seed)
    return models, asked(models, data.X, parts)


@lru_cache(maxsize=8)
def _trainer(build: Callable, genes: int, classes: int, rows: int, batch: int) -> BatchTrainer:
    return BatchTrainer(lambda: build(genes, classes), rows=rows, batch=batch)


def each_trained(
    builds: Mapping[str, Callable],
    x: np.ndarray,
    y: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    *,
    epochs: Mapping[str, int],
    batch: int = 128,
    seed: int = 0,
    learning_rate: float = 1e-3,
) -> Iterator[tuple[str, BatchTrainer, pd.DataFrame]]:
    """Several networks, trained one after the other on the same samples, each with its learning curve.

    Parameters
    ----------
    builds : {model: (genes, classes) -> untrained network}
    x, y, validation : as of `BatchTrainer.fit`; nothing is stopped or chosen
    epochs : of each model; one with 0 is left out
    batch, learning_rate : of `BatchTrainer`

    Yields
    ------
    model, its trainer, and one row an epoch with columns model, parameters and those of the history
    """
    for name, build in builds.items():
        if epochs[name]:
            trainer = BatchTrainer(
                lambda build=build: build(x.shape[1], int(y.max()) + 1), batch=batch, learning_rate=learning_rate
            )
            table = pd.DataFrame(trainer.fit(x, y, epochs=epochs[name], seed=seed, validation=validation))
            yield name, trainer, table.assign(model=name, parameters=trainer.model.count_params())


def histories(*networks_and_samples, **how) -> pd.DataFrame:
    """Learning curves of several networks (Mostavi et al. 2020, figure 2a): the tables of `each_trained` as one."""
    return pd.concat([table for *_, table in each_trained(*networks_and_samples, **how)], ignore_index=True)


class TrainedNetwork:
    """What a trainer learned from one training set; called on (samples, genes), it gives class probabilities.

    The trainer may have learned another fold since, so its weights are set again at every use.
    """

    def __init__(self, trainer: BatchTrainer, weights: list[np.ndarray], mask: TransformerMixin, classes: int = 0):
        self.trainer, self.weights, self.mask, self.classes = trainer, weights, mask, classes
        self.genes = getattr(mask, "kept_", None)

    def model(self) -> keras.Model:
        """The network with these weights."""
        self.trainer.model.set_weights(self.weights)
        return self.trainer.model

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities, (samples, classes); where the network has more outputs, among those `classes`."""
        self.model()
        found = self.trainer.predict(self.mask.transform(x))
        return among(found, self.classes) if self.classes else found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of logits, (samples, classes), in double precision."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_loss_of(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy of the true classes, natural logarithm."""
    return float(-np.log(np.clip(probabilities[np.arange(len(y)), y], 1e-12, None)).mean())


def _weighted_loss(logits, y, weight):
    losses = keras.ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
    return keras.ops.sum(losses * weight) / keras.ops.sum(weight)


def _weighted_hits(logits, y, weight):
    """Samples whose largest logit is that of their class, by weight."""
    hits = keras.ops.equal(*(keras.ops.cast(v, "int32") for v in (keras.ops.argmax(logits, axis=1), y)))
    return keras.ops.sum(weight * keras.ops.cast(hits, "float32"))


def _weight_vector(model: keras.Model) -> keras.Variable | None:
    """On TensorFlow, one variable for all weights of a network of many arrays, which an optimizer steps at once.

    The optimizers here treat every weight alone, so the steps are the same. For the 250 arrays of a small GeneXNet this
    halves the time to compile (from 11 to 5 s, on busy cores).
    """
    if keras.backend.backend() != "tensorflow" or len(model.trainable_variables) <= MANY_WEIGHTS:
        return None
    size = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return keras.Variable(np.zeros(size, np.float32), name="weights")


def _compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer, vector, **ways: Callable) -> Callable:
    """The training function of the backend in use: many steps in one compiled program.

    A full batch, (x, y, weight, steps) -> last loss; in batches, (x, y, numbers, weights, batches) -> summed loss and
    number of samples classified right.
    """
    if keras.backend.backend() not in ways:
        raise ValueError(f"KERAS_BACKEND={keras.backend.backend()}: gexlib trains on {' or '.join(ways)}; set one.")
    way = ways[keras.backend.backend()]
    return way(model, optimizer) if vector is None else way(model, _VectorOptimizer(optimizer, vector, model))


class _VectorOptimizer:
    """Steps the weights of a network, many arrays, as one vector; the network's own variables follow."""

    def __init__(self, optimizer, vector, model):
        self.optimizer, self.vector, self.weights = optimizer, vector, model.trainable_variables

    def apply(self, gradients):
        import tensorflow as tf

        def joined(arrays):
            return tf.concat([tf.reshape(array, [-1]) for array in arrays], axis=0)

        self.vector.assign(joined(self.weights))
        self.optimizer.apply([joined(gradients)])
        sizes = [int(np.prod(weight.shape)) for weight in self.weights]
        for weight, part in zip(self.weights, tf.split(self.vector, sizes), strict=True):
            weight.assign(tf.reshape(part, weight.shape))


def _tensorflow_steps(model, optimizer):
    import tensorflow as tf

    @tf.function
    def advance(x, y, weight, steps):
        loss = tf.constant(0.0)
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                loss = _weighted_loss(model(x, training=True), y, weight)
            optimizer.apply(tape.gradient(loss, model.trainable_variables))
        return loss

    return lambda x, y, weight, steps: advance(*map(tf.convert_to_tensor, (x, y, weight)), tf.constant(steps))


def convolves(model: keras.Model) -> bool:
    """Does a network hold convolution layers? On a CPU XLA makes those slower; all else it makes twice as fast."""
    return any("Conv" in type(layer).__name__ for layer in model._flatten_layers())


def _tensorflow_epoch(model, optimizer):
    import tensorflow as tf

    samples, rows = [None, *model.input_shape[1:]], [None, None]
    shapes = (samples, tf.float32), ([None], tf.int32), (rows, tf.int32), (rows, tf.float32)

    signature = [tf.TensorSpec(*shape) for shape in shapes] + [tf.TensorSpec([], tf.int32)]

    @tf.function(input_signature=signature, jit_compile=not convolves(model))
    def advance(x, y, numbers, weights, batches):
        total, right = tf.constant(0.0), tf.constant(0.0)
        for i in tf.range(batches):
            labels, weight = tf.gather(y, numbers[i]), weights[i]
            with tf.GradientTape() as tape:
                logits = model(tf.gather(x, numbers[i]), training=True)
                loss = _weighted_loss(logits, labels, weight)
            optimizer.apply(tape.gradient(loss, model.trainable_variables))
            total += loss * tf.reduce_sum(weight)
            right += _weighted_hits(logits, labels, weight)
        return total, right

    return advance


def _jax_gradient(model):
    """(weights, state, x, y, weight) -> ((loss, (state, logits)), gradients)."""
    import jax

    def loss_of(weights, state, x, y, weight):
        logits, state = model.stateless_call(weights, state, x, training=True)
        return _weighted_loss(logits, y, weight), (state, logits)

    return jax.value_and_grad(loss_of, has_aux=True)


def _jax_values(model, optimizer):
    """The variables of weights, state and moments, as groups of plain arrays; and a function that writes new ones."""
    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)

    def write(values):
        for group, new in zip(groups, values, strict=True):
            for variable, value in zip(group, new, strict=True):
                variable.assign(value)

    return [[v.value for v in group] for group in groups], write


def _jax_epoch(model, optimizer):
    import jax
    import jax.numpy as jnp

    gradient_of = _jax_gradient(model)

    def step(i, carried, x, y, numbers, weights):
        (trained, state, moments), total, right = carried
        labels, weight = y[numbers[i]], weights[i]
        (loss, (state, logits)), gradients = gradient_of(trained, state, x[numbers[i]], labels, weight)
        trained, moments = optimizer.stateless_apply(moments, gradients, trained)
        right += _weighted_hits(logits, labels, weight)
        return [trained, state, moments], total + loss * weight.sum(), right

    @jax.jit
    def whole_epoch(carried, batches, *data):
        return jax.lax.fori_loop(0, batches, lambda i, carried: step(i, carried, *data), carried)

    one_step = jax.jit(step)

    def run(x, y, numbers, weights, batches):
        groups, write = _jax_values(model, optimizer)
        data, carried = (x, y, jnp.asarray(numbers), jnp.asarray(weights)), (groups, jnp.float32(0), jnp.float32(0))
        if convolves(model):  # inside a loop XLA computes convolutions on one thread and many times more slowly
            for i in range(batches):
                carried = one_step(i, carried, *data)
        else:
            carried = whole_epoch(carried, batches, *data)
        groups, total, right = carried
        write(groups)
        return total, right

    return run


def _jax_steps(model, optimizer):
    import jax
    import jax.numpy as jnp

    gradient_of = _jax_gradient(model)

    @jax.jit
    def advance(groups, x, y, weight, steps):
        def step(_, carried):
            (trained, state, moments), _ = carried
            (loss, (state, _)), gradients = gradient_of(trained, state, x, y, weight)
            trained, moments = optimizer.stateless_apply(moments, gradients, trained)
            return [trained, state, moments], loss

        return jax.lax.fori_loop(0, steps, step, (groups, jnp.float32(0)))

    def run(x, y, weight, steps):
        groups, write = _jax_values(model, optimizer)
        groups, loss = advance(groups, x, y, weight, steps)
        write(groups)
        return loss

    return run
