"""Simulated glioblastomas with MRI traits that planted gene sets drive, for study 04."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import make_cohort
from gexlib.sources.simulated.parts import stream

KIND = "radiogenomics"
SETS = [f"SET{i:02d}" for i in range(1, 41)]
SET_SIZE = (0.015, 0.025)  # of the genes
SET_SHARE = 0.35  # most of a gene's variance that its set carries; the least is none
BROAD_SHARES = (0.13, 0.09, 0.07, 0.06, 0.04, 0.04)  # of a gene's variance
SUBTYPES = ["Classical", "Mesenchymal", "Neural", "Proneural"]
IMAGED = 175 / 528
BIOLOGY = 0.6  # of the variance of a trait's true extent that its gene sets carry
RELIABILITY = 0.8  # of the variance of a reading that is the true extent
INDETERMINATE = 0.02  # of the readings
DAYS, SHAPE = 582, 1.17  # Weibull scale and shape of the time to death at mean age
FOLLOW_UP = 2930  # mean days that a patient can be followed
AGE_MEAN, AGE_SD, AGE_HAZARD, SET_HAZARD = 57.8, 14.4, 0.49, 0.14  # years; log hazard per SD
MALE, WHITE = 0.61, 0.89


@dataclass(frozen=True)
class Trait:
    """How the gene sets of one VASARI feature act, and what a reader can write down."""

    values: dict[str, int]  # from least to most -> patients of the public example
    sets: int
    signal: Callable[[np.ndarray], np.ndarray]  # of activities (patients, sets), with variance 1
    told: str
    best_auc: float  # of the binarised trait by the signal


def _proportions(*patients: int) -> dict[str, int]:
    words = ("Minimal", "Less than 1/3", "Between 1/3 and 2/3", "More than 2/3")
    return dict(zip(words, patients, strict=True))


def _sum(a: np.ndarray) -> np.ndarray:
    return (a[:, 0] + a[:, 1]) / np.sqrt(2)


def _larger(a: np.ndarray) -> np.ndarray:
    return (a.max(axis=1) - np.sqrt(1 / np.pi)) / np.sqrt(1 - 1 / np.pi)


def _u_shape(a: np.ndarray) -> np.ndarray:
    return ((a[:, 0] ** 2 - 1) / np.sqrt(2) + a[:, 1]) / np.sqrt(2)


def _gate(a: np.ndarray) -> np.ndarray:
    return np.sqrt(2) * a[:, 0] * (a[:, 1] > 0)


def _product(a: np.ndarray) -> np.ndarray:
    return a[:, 0] * a[:, 1]


def _nothing(a: np.ndarray) -> np.ndarray:
    return np.zeros(len(a))


TRAITS = {
    "f5.proportion.enhancing": Trait(_proportions(1, 10, 5, 4), 2, _sum, "the sum of {} and {}", 0.825),
    "f6.proportion.ncet": Trait(_proportions(7, 6, 3, 4), 2, _larger, "the larger of {} and {}", 0.831),
    "f7.proportion.necrosis": Trait(_proportions(8, 9, 1, 2), 2, _u_shape, "the square of {}, plus {}", 0.865),
    "f9.multifocal.or.multicentric": Trait(
        {"Focal": 16, "Multifocal or Multicentric": 4}, 0, _nothing, "nothing that genes see", 0.5
    ),
    "f10.t1.flair.ratio": Trait(
        {
            "expansive (T1~FLAIR)": 11,
            "mixed (T1 less than FLAIR)": 5,
            "infiltrative (T1 much smaller than FLAIR)": 3,
        },
        2,
        _product,
        "the product of {} and {}",
        0.771,
    ),
    "f14.proportion.edema": Trait(
        _proportions(8, 4, 2, 6), 2, _gate, "{} where {} is above its mean, else nothing", 0.749
    ),
}


def simulate_radiogenomics(n: int, genes: int, seed: int) -> anndata.AnnData:
    """Glioblastomas on an array (log2 RMA), a third of them with MRI traits that gene sets drive; `n` counts patients.

    The shape is that of Smedley et al. 2020: 528 patients, 175 of them with images, who differ in nothing else. What is
    planted, and where from ("TCGA-GBM" is 304 patients x 1,375 genes, centred and scaled, of oncoscape's data package,
    with MSigDB 6.2 hallmarks, Verhaak's, Puchalski's and Cahoy's brain sets; or the clinical table of 592 patients):

    - *Traits*: columns and words are those of the public example of 20 patients in the authors' repository, and so are
      the shares of classes, whose standard errors reach .11. Two gene sets drive each trait: their sum (f5), the
      larger (f6), the square of one plus the other (f7), one where the other is above its mean (f14), their product
      (f10), of which neither alone tells the class, its square next to nothing (AUC .52). No gene sees f9. Which trait
      has which is assumed, and no finding on real tumours.
    - *Strength*: gene sets carry .6 of the variance of a trait's true extent, which is assumed: the tissue is of one
      place and the image of the whole tumour, and pieces of one tumour mostly have different subtypes (Sottoriva et
      al. 2013, PNAS 110:4009). The true extent carries .8 of the variance of a reading, so that two readers agree on
      the binarised trait (more than 1/3, infiltrative or mixed, not focal) with a kappa of .54 to .59 and on the words
      with .39 to .56. Three radiologists rated such features of TCGA-GBM for Gutman et al. 2013 (Radiology 267:560),
      but no table of agreement was at hand: .8 is assumed, for kappas between .4 and .8. So the sets carry .48 of a
      reading, and whoever knew their activities would have an AUC of .825 (f5), .831 (f6), .865 (f7), .771 (f10),
      .749 (f14) and .5 (f9); the squared distances between the classes on that signal are 1.8, 1.8, 2.2, 1.0, 1.1 and
      0. 2 % of readings are indeterminate (1 of 120 in the example).
    - *Gene sets*: 40 of 1.5 to 2.5 % of the genes each, a fifth of the genes in none. A set carries 0 to .35 of a
      gene's variance, a mean correlation of .155 within sets. That of the sets with ten genes or more is .19 in
      TCGA-GBM (59 sets, 0 to .6) and .12 without the 840 genes that were chosen to tell subtypes (29 sets): the
      middle is taken, as both are chosen genes. In TCGA-GBM ten principal components take nearly all of it away (.02
      is left); here sets are independent of broad factors and of each other, so that what is planted has one name.
    - *Broad factors*: six with the shares of the first six principal components without those 840 genes (.13 to .04,
      together .43; .53 with them). The highest of the first four names the subtype, so that subtypes carry .11 of the
      variance (.14 measured, .25 with those 840 genes) and have a quarter of the patients each (.16 to .32 in
      TCGA-GBM). Traits and survival do not see them.
    - *Levels and SDs* of genes cannot be had from centred and scaled data; they are those of
      `simulate_neuroblastoma`, another Affymetrix array. There are no batches.
    - *Survival*, of all patients: Weibull by age as fitted to TCGA-GBM (log hazard .49 per SD of age; median 427 days,
      .58, .23 and .06 alive after 1, 2 and 5 years; here about 410, .55, .29 and .05). Follow-up is exponential, which
      leaves 17 % alive as there. One set, the second of f5, has a log hazard of .14 per SD: the largest of those 59
      sets given age in TCGA-GBM, the median is .07. Sex has none (.0 and .17 +- .09). Age, sex and race have the
      distributions of that table.
    """
    var, parts = _genes(genes, seed)
    activity = stream(KIND, "activities", seed).standard_normal((n, len(SETS)))
    broad = stream(KIND, "broad factors", seed).standard_normal((n, len(BROAD_SHARES)))
    signal = np.stack([trait.signal(activity[:, parts["sets"][name]]) for name, trait in TRAITS.items()], axis=1)
    obs = _patients(n, activity[:, parts["sets"]["os_days"][0]], seed)
    obs = obs.join(_readings(signal, obs["imaged"], seed))
    obs["subtype"] = pd.Categorical.from_codes(broad[:, :4].argmax(axis=1), SUBTYPES)
    cohort = make_cohort(
        _express(activity, broad, parts, seed),
        obs,
        var,
        name=f"simulated:{KIND},n={n},genes={genes},seed={seed}",
        unit="log2 RMA",
        simulated=True,
        source=f"gexlib simulate('{KIND}', n={n}, genes={genes}, seed={seed})",
        transforms=["drawn on the log2 scale", "rounded to two decimals"],
    )
    cohort.obsm["truth_activity"] = pd.DataFrame(activity, cohort.obs_names, SETS)
    cohort.obsm["truth_signal"] = pd.DataFrame(signal, cohort.obs_names, list(TRAITS))
    names = {label: [SETS[number] for number in numbers] for label, numbers in parts["sets"].items()}
    cohort.uns["truth_sets"] = {label: " ".join(sets) for label, sets in names.items()}
    cohort.uns["truth_auc"] = {name: trait.best_auc for name, trait in TRAITS.items()}
    cohort.uns["truth"] = {name: trait.told.format(*names[name]) for name, trait in TRAITS.items()} | {
        "os_days": f"age, log hazard {AGE_HAZARD} per SD, and {names['os_days'][0]}, {SET_HAZARD}",
        "planted genes": "var['truth_planted'], those of the sets above; the traits of a gene's set in "
        "var['truth_traits'], the share of its variance that the set carries in var['truth_share']",
        "activities": "obsm['truth_activity'], of every set in every patient, independent, mean 0 and SD 1",
        "signals": "obsm['truth_signal'], what the sets give each trait, imaged or not, mean 0 and SD 1 (f9: 0)",
        "best AUC": "uns['truth_auc'], of the trait as read, binarised, by the signal",
    }
    return cohort


def _genes(genes: int, seed: int) -> tuple[pd.DataFrame, dict]:
    """One row a gene with its truth; numbers of the planted sets by label, and the parts of expression in log2."""
    rng = stream(KIND, "genes", seed)
    expressed = rng.random_sample(genes) < 0.6
    high, low = 8.5 + 1.3 * rng.standard_normal(genes), 4.5 + 0.7 * rng.standard_normal(genes)
    sd = np.clip(0.48 * np.exp(0.5 * rng.standard_normal(genes)), 0.15, 2.0)
    sizes = np.maximum(2, np.round(rng.uniform(*SET_SIZE, len(SETS)) * genes)).astype(int)
    number = np.full(genes, len(SETS))
    number[rng.permutation(genes)[: sizes.sum()]] = np.repeat(np.arange(len(SETS)), sizes)
    share = np.where(number < len(SETS), SET_SHARE * rng.random_sample(genes), 0.0)
    free, planted = iter(rng.permutation(len(SETS))), {}
    for name, trait in TRAITS.items():
        planted[name] = [int(next(free)) for _ in range(trait.sets)]
    planted["os_days"] = planted["f5.proportion.enhancing"][1:]

    var = pd.DataFrame(index=[f"SIM{i:05d}" for i in range(1, genes + 1)])
    var["module"] = pd.Categorical.from_codes(number, [*SETS, "none"])
    drives = [" ".join(label for label, sets in planted.items() if k in sets) for k in range(len(SETS) + 1)]
    var["truth_traits"] = np.array(drives, object)[number]
    var["truth_planted"] = var["truth_traits"] != ""
    var["truth_share"] = share
    return var, {
        "sets": planted,
        "number": number,
        "mean": np.where(expressed, high, low),
        "broad": rng.standard_normal((len(BROAD_SHARES), genes)) * np.sqrt(BROAD_SHARES)[:, None] * sd,
        "set": sd * np.sqrt(share),
        "noise": sd * np.sqrt(1 - sum(BROAD_SHARES) - share),
    }


def _patients(n: int, harm: np.ndarray, seed: int) -> pd.DataFrame:
    """One row a patient: who has images, and survival by age and by the activity `harm` (n,) of one set."""
    rng, ids = stream(KIND, "patients", seed), [f"P{i:05d}" for i in range(1, n + 1)]
    age = rng.standard_normal(n)
    lived = DAYS * (rng.standard_exponential(n) * np.exp(-AGE_HAZARD * age - SET_HAZARD * harm)) ** (1 / SHAPE)
    followed = FOLLOW_UP * rng.standard_exponential(n)
    imaged = np.isin(np.arange(n), rng.permutation(n)[: round(IMAGED * n)])
    male, white = rng.random_sample(n) < MALE, rng.random_sample(n) < WHITE
    obs = pd.DataFrame({"patient": ids}, index=ids)
    obs["imaged"] = pd.Categorical.from_codes(imaged.astype(int), ["no", "yes"])
    obs["os_days"] = np.ceil(np.minimum(lived, followed)).astype(int)
    obs["vital"] = pd.Categorical.from_codes((lived <= followed).astype(int), ["alive", "dead"], ordered=True)
    obs["age"] = np.clip(AGE_MEAN + AGE_SD * age, 10, 89).round().astype(int)
    obs["gender"] = pd.Categorical.from_codes(male.astype(int), ["female", "male"])
    obs["race"] = pd.Categorical.from_codes((~white).astype(int), ["white", "other"])
    return obs


def _readings(signal: np.ndarray, imaged: pd.Series, seed: int) -> pd.DataFrame:
    """What two readers write down of each trait, missing without images; `signal` is (patients, traits).

    Both cut the extent they see where the classes have their shares among all patients.
    """
    rng, tables = stream(KIND, "readings", seed), ({}, {})
    for name, trait, driven in zip(TRAITS, TRAITS.values(), signal.T, strict=True):
        other = np.sqrt(1 - BIOLOGY * bool(trait.sets)) * rng.standard_normal(len(driven))
        extent = np.sqrt(BIOLOGY) * driven + other
        seen = np.sqrt(1 - RELIABILITY) * rng.standard_normal((2, len(driven))) + np.sqrt(RELIABILITY) * extent
        below = np.cumsum(list(trait.values.values()))[:-1] / sum(trait.values.values())
        codes = np.searchsorted(np.quantile(seen, below), seen)
        codes[(rng.random_sample(seen.shape) < INDETERMINATE) | (imaged == "no").to_numpy()] = -1
        for table, suffix, written in zip(tables, ("", ".reader2"), codes, strict=True):
            table[name + suffix] = pd.Categorical.from_codes(written, list(trait.values), ordered=True)
    return pd.DataFrame(tables[0] | tables[1], index=imaged.index)


def _express(activity: np.ndarray, broad: np.ndarray, parts: dict, seed: int) -> np.ndarray:
    """Expression (patients, genes), log2; products are of numbers with rows, which sum alike on every machine."""
    none = np.zeros((len(activity), 1))
    X = stream(KIND, "noise", seed).standard_normal((len(activity), len(parts["mean"]))) * parts["noise"]
    X += np.hstack([activity, none])[:, parts["number"]] * parts["set"]
    for score, loadings in zip(broad.T, parts["broad"], strict=True):
        X += np.outer(score, loadings)
    X += parts["mean"]
    return np.clip(X, 1.5, 15.0).round(2)  # the range of a log2 RMA array
