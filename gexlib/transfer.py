"""From many organ sites to one with few samples: tasks of a site, pretraining without it, fine-tuning (study 03)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from gexlib.cohort import CohortError
from gexlib.models.genexnet import split_at
from gexlib.splits import at_most, grouped_folds, plain_split
from gexlib.training import BatchTrainer, keras, outputs_of, steps_recipe


@dataclass(frozen=True)
class Task:
    """One question about some of the samples: their `rows`, classes `y` and `patients`, and who is tested.

    `away` are the rows that a pretraining without the task must not see: all samples of its site or types, normals too.
    `parts` are folds by patient; `split` is one random 85 : 15, as published. Both count positions among `rows`.
    """

    rows: np.ndarray
    away: np.ndarray
    y: np.ndarray
    patients: np.ndarray
    parts: list[tuple[int, np.ndarray, np.ndarray]]
    split: list[tuple[int, np.ndarray, np.ndarray]]


def site_task(
    name: str, types: pd.Series, sites: pd.Series, normal: np.ndarray, patients: np.ndarray, folds: int, seed: int
) -> Task:
    """A task by its name (Khorshed et al. 2020, section V.B, which has two readings).

    Parameters
    ----------
    name : "breast", tumour (1) or normal (0) at that site; "kidney types", the types among its tumours; "HNSC:LUSC",
        two types, tumours alone
    types, sites : of every sample
    normal, patients : (samples,)
    folds : of `parts`, fewer where a class has fewer patients
    seed : of folds and split

    Raises
    ------
    CohortError : no such site or type, or only one class of it
    """
    site, _, other = name.removesuffix(" types").partition(":")
    wanted, column = ({site, other}, types) if other else ({site}, sites)
    if absent := sorted(wanted - set(column.astype(str))):
        raise CohortError(
            f"the task '{name}': no sample of '{absent[0]}'; there are {', '.join(map(str, column.unique()))}."
        )
    asks_types = bool(other) or name.endswith(" types")
    concerned = column.astype(str).isin(wanted).to_numpy()
    rows = np.flatnonzero(concerned & ~(normal & asks_types))
    words = types.astype(str).to_numpy()[rows] if asks_types else np.where(normal[rows], "a normal", "a tumour")
    classes, y = np.unique(words, return_inverse=True)
    if len(classes) < 2:
        raise CohortError(f"the task '{name}' has the single class '{classes[0]}'; leave it out.")
    split = [(0, *plain_split(len(rows), 0.15, seed))]
    parts = list(grouped_folds(y, patients[rows], at_most(folds, y, patients[rows]), seed=seed))
    return Task(rows, np.flatnonzero(concerned), y, patients[rows], parts, split)


def site_tasks(
    sites: Iterable[str], others: Iterable[str], types: pd.Series, places: pd.Series, *how
) -> dict[str, Task]:
    """Tasks by name: each of `sites` and of `others`, and the types within one of `sites` that has several.

    Parameters
    ----------
    sites, others : names as of `site_task`
    types, places : type and site of every sample
    how : the other arguments of `site_task`

    Raises
    ------
    CohortError : as `site_task`
    """
    several = [f"{site} types" for site in sites if types[(places == site).to_numpy()].nunique() > 1]
    return {name: site_task(name, types, places, *how) for name in dict.fromkeys([*sites, *others, *several])}


@dataclass(frozen=True)
class Pretrained:
    """What was learned on other samples: the `scale` of their genes and the `weights` of the network."""

    scale: Callable
    weights: list[np.ndarray]


def pretrain(
    trainer: BatchTrainer, x: np.ndarray, y: np.ndarray, patients: np.ndarray, *, away: np.ndarray = (), **how
) -> Pretrained:
    """Train on all samples, or on those of patients who have none among the rows `away`.

    Parameters
    ----------
    x, y, patients : (samples, genes), class numbers, ids
    away : rows of the target, none of whose patients is seen
    how : as of `BatchTrainer.fit`
    """
    kept = np.flatnonzero(~np.isin(patients, patients[np.asarray(away, int)]))
    scaling = StandardScaler().fit(x[kept])
    trainer.fit(scaling.transform(x[kept]), y[kept], **how)
    return Pretrained(scaling.transform, trainer.model.get_weights())


class Transfer:
    """A trained GeneXNet for another task: its first blocks frozen, the others trained further (section III.A).

    Samples pass the frozen blocks once, in test mode; what comes out, `maps`, is all that fine-tuning needs. Built and
    compiled once for the weights of any pretraining of the same network.

    Parameters
    ----------
    model : a GeneXNet, which is left as it is
    block : "stage1" to "stage4", or "head": the first part whose weights may move
    classes : of the new task, whose last layer starts from fresh weights
    learning_rate, batch : of `training.BatchTrainer`

    Raises
    ------
    ValueError : no such block
    """

    def __init__(self, model: keras.Model, block: str, classes: int, learning_rate: float = 1e-3, batch: int = 16):
        self.frozen, trained = split_at(model, block, classes)
        self._head = trained.get_weights()[-2].shape
        self.trainer = BatchTrainer(lambda: trained, learning_rate, batch=batch)

    def maps(self, pretrained: Pretrained, x: np.ndarray) -> np.ndarray:
        """What the frozen blocks make of samples, (samples, side, side, channels); `x` on its own scale."""
        self.frozen.set_weights(pretrained.weights[: len(self.frozen.weights)])
        return outputs_of(self.frozen, pretrained.scale(x))

    def recipe(self, pretrained: Pretrained, steps: int) -> Callable:
        """A fitting recipe for `evaluate.predictions`, on maps; the last layer is drawn anew for every seed."""
        before, limit = pretrained.weights[len(self.frozen.weights) : -2], np.sqrt(6 / sum(self._head))

        def fit(x, y, patients, seed):
            head = np.random.default_rng(seed).uniform(-limit, limit, self._head).astype(np.float32)
            start = [*before, head, np.zeros(self._head[1], np.float32)]
            return steps_recipe(self.trainer, steps, start=start)(x, y, patients, seed)

        return fit
