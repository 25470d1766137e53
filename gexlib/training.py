"""Training: one quiet import of Keras, seeds and threads, and full-batch training compiled once a shape.

Other modules take `keras` from here, so that the framework is loaded in one place: without its start-up messages, on
a fixed number of threads, and without claiming all the memory of a GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np

from gexlib.prep import scaler
from gexlib.splits import inner_split

THREADS = 2  # results repeat to the bit at one thread count and differ between two


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
                tf.config.threading.set_inter_op_parallelism_threads(1)
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
    """

    def __init__(self, build: Callable[[], keras.Model], learning_rate: float, rows: int = 0):
        self.build, self.learning_rate, self.rows = build, learning_rate, rows
        self.model = build()
        self.optimizer = keras.optimizers.Adam(learning_rate)
        self.optimizer.build(self.model.trainable_variables)
        self._optimizer_start = [keras.ops.convert_to_numpy(v) for v in self.optimizer.variables]
        self._advance = _compiled_steps(self.model, self.optimizer)

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
        logits = keras.ops.convert_to_numpy(self.model(np.asarray(x, dtype=np.float32), training=False))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def _start_again(self, seed: int) -> None:
        with _quiet_start():  # on the jax backend the seeding loads TensorFlow
            keras.utils.set_random_seed(seed)
        for variable, fresh in zip(self.model.variables, self.build().variables, strict=True):
            variable.assign(fresh)
        for variable, start in zip(self.optimizer.variables, self._optimizer_start, strict=True):
            variable.assign(start)

    def _padded(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        short = max(self.rows - len(x), 0)
        weight = np.ones(len(x), dtype=np.float32)
        x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.int32)
        return np.pad(x, ((0, short), (0, 0))), np.pad(y, (0, short)), np.pad(weight, (0, short))


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


def log_loss_of(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy of the true classes, natural logarithm."""
    return float(-np.log(np.clip(probabilities[np.arange(len(y)), y], 1e-12, None)).mean())


def _weighted_loss(logits, y, weight):
    losses = keras.ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
    return keras.ops.sum(losses * weight) / keras.ops.sum(weight)


def _compiled_steps(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Callable:
    """A function (x, y, weight, steps) -> last loss that runs all its steps inside one compiled loop."""
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_steps(model, optimizer)
    if keras.backend.backend() == "jax":
        return _jax_steps(model, optimizer)
    raise ValueError(f"KERAS_BACKEND={keras.backend.backend()}: gexlib trains on tensorflow or jax; set one of them.")


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


def _jax_steps(model, optimizer):
    import jax
    import jax.numpy as jnp

    def loss_of(weights, state, x, y, weight):
        logits, state = model.stateless_call(weights, state, x, training=True)
        return _weighted_loss(logits, y, weight), state

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)

    @jax.jit
    def advance(weights, state, moments, x, y, weight, steps):
        def step(_, carried):
            weights, state, moments, _ = carried
            (loss, state), gradients = gradient_of(weights, state, x, y, weight)
            weights, moments = optimizer.stateless_apply(moments, gradients, weights)
            return weights, state, moments, loss

        return jax.lax.fori_loop(0, steps, step, (weights, state, moments, jnp.float32(0)))

    def run(x, y, weight, steps):
        groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        *values, loss = advance(*([v.value for v in group] for group in groups), x, y, weight, steps)
        for group, new in zip(groups, values, strict=True):
            for variable, value in zip(group, new, strict=True):
                variable.assign(value)
        return loss

    return run
