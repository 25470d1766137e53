"""Simulated tumours of 33 types and normal tissue, with tissue genes and tumour genes known apart, for study 02."""

from __future__ import annotations

from collections.abc import Mapping

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import make_cohort
from gexlib.sources.simulated.parts import shares_to_counts, stream

KEPT = 0.54  # part of its tissue's own expression that a tumour keeps; the median of the ten types measured
# Tumours, normals, and the part that the tumours keep of each tissue module; the first module names their tissue.
TYPES = {
    "ACC": (79, 0, {"adrenal cortex": KEPT}),
    "BLCA": (411, 19, {"bladder": KEPT, "squamous": 0.75}),
    "BRCA": (1104, 113, {"breast": 0.49}),
    "CESC": (306, 3, {"cervix": KEPT, "squamous": 0.75}),
    "CHOL": (36, 9, {"liver": 0.25}),
    "COAD": (471, 41, {"colorectum": KEPT}),
    "DLBC": (48, 0, {"lymphoid": KEPT}),
    "ESCA": (162, 11, {"stomach": KEPT, "squamous": 0.75}),
    "GBM": (168, 5, {"brain": KEPT}),
    "HNSC": (502, 44, {"head and neck": 0.78, "squamous": 1.0}),
    "KICH": (65, 24, {"kidney": 0.2, "distal nephron": KEPT}),
    "KIRC": (535, 72, {"kidney": 0.51, "distal nephron": 0.1}),
    "KIRP": (289, 32, {"kidney": 0.57, "distal nephron": 0.1}),
    "LAML": (151, 0, {"myeloid": KEPT}),
    "LGG": (529, 0, {"brain": KEPT}),
    "LIHC": (374, 50, {"liver": 0.74}),
    "LUAD": (526, 59, {"lung": 0.41}),
    "LUSC": (501, 49, {"lung": 0.19, "squamous": 0.75}),
    "MESO": (86, 0, {"mesothelium": KEPT}),
    "OV": (379, 0, {"ovary": KEPT}),
    "PAAD": (178, 4, {"pancreas": KEPT}),
    "PCPG": (183, 3, {"paraganglia": KEPT}),
    "PRAD": (499, 52, {"prostate": 0.88}),
    "READ": (167, 10, {"colorectum": KEPT}),
    "SARC": (263, 2, {"soft tissue": KEPT}),
    "SKCM": (471, 1, {"melanocyte": KEPT}),
    "STAD": (375, 32, {"stomach": KEPT}),
    "TGCT": (156, 0, {"testis": KEPT}),
    "THCA": (510, 58, {"thyroid": 0.64}),
    "THYM": (119, 2, {"thymus": KEPT}),
    "UCEC": (548, 35, {"uterus": KEPT}),
    "UCS": (56, 0, {"uterus": KEPT}),
    "UVM": (80, 0, {"melanocyte": KEPT}),
}
FEWEST_TUMOURS, FEWEST_NORMALS = 5, 2  # of a type
MODULES = sorted({module for *_, kept in TYPES.values() for module in kept})
TISSUE_OF = {name: next(iter(kept)) for name, (*_, kept) in TYPES.items()}
SQUAMOUS_TUMOURS = {"HNSC": 1.0, "LUSC": 1.0, "CESC": 0.81, "ESCA": 0.55, "BLCA": 0.35}  # share of a type's tumours
SQUAMOUS_NORMALS = ("HNSC", "CESC", "ESCA")  # types whose normals are squamous epithelium
MODULES_SHARE, MODULES_EFFECT = 0.30, 2.7  # genes in any tissue module; median log2 in the normal
MODULE_WEIGHTS = {"testis": 3, "brain": 3, "liver": 3, "lung": 2, "distal nephron": 0.5}  # in genes; 1 for the others
MARKERS_ALONE, MARKERS_SHARED, MARKERS_EFFECT = 0.009, 0.003, 1.5  # genes a type, alone in its tissue or not; log2
ALIKE, ALIKE_MARKERS, ALIKE_EFFECT = ("COAD", "READ"), 0.001, 0.5  # have no background of their own
PROGRAMME_SHARE, PROGRAMME_EFFECT = 0.17, 1.0
TISSUE_SD, LINEAGE_SD, TYPE_SD = 0.8, 0.5, 0.5  # log2 background: of a tissue, of its tumours, of one type
QUIET_SHARE, QUIET_SCALE = 0.14, 0.4  # genes that tell nothing, half of them near zero; their variation
MEAN_SHARES = (0, 0.12, 0.3, 0.5, 0.7, 0.85, 0.95, 1)  # of genes below MEANS
MEANS = (-0.2, 1.4, 2.4, 3.4, 4.4, 5.4, 6.9, 9.5)  # log2; below 0 reads as zero
SPECIFIC_LOWER = 1.0  # how much lower genes of a tissue or type are everywhere else
SD_MEDIAN, SD_SPREAD, NORMAL_SCALE = 0.87, 0.29, 0.65  # a gene's log2 SD within a type; of that, a normal's
BROAD_SHARES = (0.087, 0.063, 0.047, 0.035, 0.025, 0.019, 0.016, 0.015, 0.013, 0.013)  # of a tumour gene's variance
SETS = 50  # of co-expressed genes
OWN = 0.1  # correlation of a normal with the tumour of its patient
PLATE_ALIQUOTS, PLATE_SD, PLATE_STRAYS = 30, 0.18, 0.1  # a plate's size; its part of a gene's SD; aliquots astray


def simulate_pancancer(n: int, genes: int, seed: int) -> anndata.AnnData:
    """Tumours of 33 types and normals of 24 of them, RNA-seq as log2(FPKM+1); `n` counts aliquots, at least 400.

    "Measured" is on 1,410 TCGA aliquots of 15 types, ten of them with normals of seven tissues: RSEM taken to FPKM with
    gene lengths drawn around 2.5 kb, and 3,567 genes narrowed to the 2,006 with a mean of at least .5 and an SD of at
    least .8. What is planted, and where from:

    - *Aliquots*: TCGA mRNA, tumour and normal aliquots per type (10,327 and 730), scaled by largest remainder, with at
      least five tumours of a type, so that five folds can hold it, and two normals where it has any (SKCM has one).
      Each normal is of a patient whose tumour is there.
    - *Tissue modules*, 30 % of the genes, log-normal around 2.7 log2 in the normal. Measured: 13 % of genes lie 2 log2
      above every other tissue in one of seven, where Gaussian tissues would have 2 %; in the 33 % that lie 1 above, the
      median is 2.7 over the mean of the others. Liver and lung have three and two times the genes of another tissue
      (measured: six and four), testis and brain three (Uhlen et al. 2015, Science 347:1260419). Tumours keep what was
      measured in BRCA (.49), CHOL (.25, of liver), HNSC (.78), KIRC (.51), KIRP (.57), LIHC (.74), LUAD (.41), LUSC
      (.19), PRAD (.88) and THCA (.64), the slope of tumour on normal over all genes; others their median, .54. That
      KICH keeps the distal nephron follows its origin (Davis et al. 2014, Cancer Cell 26:319), the sizes are assumed.
    - *Squamous*, a module of its own in HNSC, LUSC, 81 % of CESC (TCGA 2017, Nature 543:378), 55 % of ESCA (TCGA 2017,
      Nature 541:169) and 35 % of BLCA (Robertson et al. 2017, Cell 171:540), and in the normals of HNSC, CESC and ESCA.
      LUSC has three quarters of what HNSC has (measured: 3.5 of 4.6 log2); so have, by assumption, the others.
    - *Markers*, genes of one type that no normal has: .9 % of the genes for a type alone in its tissue, .3 % where two
      or more share it, around 1.5 log2. Measured: 1.3 % (median of four types) and .25 % (of six) lie .5 log2 above
      every other tumour and normal, .9 to 2.4 above the own normal; below all others no more than chance has it. COAD
      and READ, indistinguishable in expression (TCGA Network 2012, Nature 487:330), have .1 % around .5.
    - *Programme* of all tumours against all normals, 17 % of the genes, either sign, around 1.0; no markers, but tissue
      genes as others. Measured: 13 % have one sign in all seven tissues (1.6 % by chance), around .95, half of them
      up, and the common difference has a variance of .28, unbiased.
    - *Background*: every gene differs somewhat between all types, by an SD of .8 between normal tissues, of which
      tumours keep their part; .5 is shared by the tumours of a tissue and .5 is a type's own (COAD and READ: none).
      Measured: without its highest class a gene's SD is .64 over tissues and .76 over types, here the same; LUAD and
      LUSC are .75 apart (root mean square), here too. The few genes that vary by 2 log2 between all types, in which
      the planted ones would drown, are left out: a typical pair is 1.2 apart (measured 1.5), KIRC and KIRP .7 (.96),
      .48 of a gene's variance is between types (.53). Squamous types share their module alone.
    - *Within a type* a gene's SD is log-normal around .87, at every mean, and .65 of that in normals (median of ten).
      Ten broad factors have the shares of the first ten principal components within types; that 50 modules of
      co-expressed genes and noise share the rest is assumed. A normal correlates .1 with the tumour of its patient
      (BRCA .11, KIRC .09). A plate of 30 carries 3 % of a gene's variance (BRCA, KIRC) and is mostly of one type.
    - *Low genes*: means as measured, those of tissue genes and markers 1 log2 lower elsewhere (measured 1.0 to 1.5), so
      that many read zero in most types and are high in one. A seventh tells nothing, half of it near zero and half
      expressed but steady: of all 20,531 genes in 350 aliquots 28 % have a mean below .5 and 32 % more an SD below .8.
      With those that come out too low, a fifth of the genes fails a filter of .5 and .8, not three fifths.
    """
    var, parts = gene_table("pancancer", TYPES, genes, seed)
    obs, state, own = aliquot_table("pancancer", TYPES, _sizes(n), seed)
    cohort = make_cohort(
        express("pancancer", obs, state, own, parts, seed),
        obs,
        var,
        name=f"simulated:pancancer,n={n},genes={genes},seed={seed}",
        unit="log2(FPKM+1)",
        simulated=True,
        source=f"gexlib simulate('pancancer', n={n}, genes={genes}, seed={seed})",
        transforms=["drawn on the log2 scale", "rounded to two decimals"],
    )
    cohort.uns["truth"] = {
        "tissue modules": "var['truth_tissue']; log2 in the normal in var['truth_tissue_effect'], less in the tumour",
        "markers": "var['truth_marker'], the type; log2 in its tumours in var['truth_marker_effect'], 0 in all normals",
        "programme": "var['truth_programme'], log2 of every tumour against every normal",
        "background": "every gene also differs a little between all tissues and types; this is not recorded",
        "types without much of their own": "COAD and READ",
    }
    return cohort


def gene_table(
    kind: str,
    types: Mapping[str, tuple],
    genes: int,
    seed: int,
    strength: Mapping[str, float] | None = None,
    lineage_sd: float = LINEAGE_SD,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row a gene with its truth; and the parts of its expression, log2: (genes,), or a row a state or factor.

    `types` are some of `TYPES`; a module or marker has the same share of the genes however few they are. A type has
    `strength` times the programme, 1 unless told; `lineage_sd` is the background that tumours of a tissue share. States
    are those of `_means`. No gene is of two modules or two types, nor of both a module and a type.
    """
    rng = stream(kind, "genes", seed)
    order = rng.permutation(genes)
    quiet, rest = np.split(order, [int(round(QUIET_SHARE * genes))])
    tissue, marker = np.full(genes, "", object), np.full(genes, "", object)
    weights, modules = {module: MODULE_WEIGHTS.get(module, 1) for module in MODULES}, _modules(types)
    tissue_genes = _label(tissue, rest, {m: MODULES_SHARE * weights[m] / sum(weights.values()) for m in modules})
    marker_genes = _label(marker, rest[tissue_genes:], {name: _marker_share(name) for name in types})
    alike = np.isin(marker, ALIKE)
    specific = (tissue != "") | (marker != "")
    var = pd.DataFrame(index=[f"SIM{i:05d}" for i in range(1, genes + 1)])
    var["truth_tissue"] = pd.Categorical(tissue, ["", *modules])
    var["truth_tissue_effect"] = (tissue != "") * MODULES_EFFECT * np.exp(0.4 * rng.standard_normal(genes))
    var["truth_marker"] = pd.Categorical(marker, ["", *types])
    var["truth_marker_effect"] = (marker != "") * MARKERS_EFFECT * np.exp(0.4 * rng.standard_normal(genes))
    var.loc[alike, "truth_marker_effect"] *= ALIKE_EFFECT / MARKERS_EFFECT
    signed = PROGRAMME_EFFECT * np.exp(0.5 * rng.standard_normal(genes))
    signed *= np.where(rng.random_sample(genes) < 0.5, -1.0, 1.0)
    free = rng.permutation(np.concatenate([rest[:tissue_genes], rest[tissue_genes + marker_genes :]]))
    var["truth_programme"] = np.where(np.isin(np.arange(genes), free[: int(round(PROGRAMME_SHARE * genes))]), signed, 0)
    var["truth_planted"] = specific | (var["truth_programme"] != 0)

    mean = np.interp(rng.random_sample(genes), MEAN_SHARES, MEANS) - SPECIFIC_LOWER * specific
    near_zero = quiet[: quiet.size // 2]
    mean[near_zero] = rng.uniform(-2.5, -0.2, near_zero.size)
    scale = np.where(np.isin(np.arange(genes), quiet), QUIET_SCALE, 1.0)
    sd = scale * SD_MEDIAN * np.exp(SD_SPREAD * rng.standard_normal(genes))
    set_share = np.where(rng.random_sample(genes) < 0.6, rng.uniform(0.2, 0.8, genes), 0.0)
    unbroad = sd * np.sqrt(1 - sum(BROAD_SHARES))
    return var, {
        "mean": mean + _means(types, var, scale, rng, strength or {}, lineage_sd),
        "broad": rng.standard_normal((len(BROAD_SHARES), genes)) * np.sqrt(BROAD_SHARES)[:, None] * sd,
        "number": rng.randint(0, SETS, genes),
        "set": unbroad * np.sqrt(set_share),
        "noise": unbroad * np.sqrt(1 - set_share),
        "plate_sd": PLATE_SD * sd,
        "quiet": scale != 1,
    }


def _modules(types: Mapping[str, tuple]) -> list[str]:
    return sorted({module for *_, kept in types.values() for module in kept})


def _marker_share(name: str) -> float:
    """Share of the genes that are markers of a type."""
    if name in ALIKE:
        return ALIKE_MARKERS
    return MARKERS_ALONE if list(TISSUE_OF.values()).count(TISSUE_OF[name]) == 1 else MARKERS_SHARED


def _label(labels: np.ndarray, order: np.ndarray, shares: dict[str, float]) -> int:
    """Write each name on its share of all genes, at least one, in the order given; and how many genes that took."""
    sizes = [max(1, int(round(share * labels.size))) for share in shares.values()]
    labels[order[: sum(sizes)]] = np.repeat(np.array(list(shares), object), sizes)
    return sum(sizes)


def _means(
    types: Mapping[str, tuple],
    var: pd.DataFrame,
    scale: np.ndarray,
    rng: np.random.RandomState,
    strength: Mapping[str, float],
    lineage_sd: float,
) -> np.ndarray:
    """Log2 that each state adds to a gene, (3 x types, genes): each type's tumours, those squamous, and normals."""
    draws = {
        part: dict(zip(names, rng.standard_normal((len(names), len(var))), strict=True))
        for part, names in (("tissue", _modules(types)), ("lineage", _modules(types)), ("type", types))
    }
    tissue, marker, effect = var["truth_tissue"], var["truth_marker"], var["truth_tissue_effect"].to_numpy()
    plain, squamous, normal = means = np.zeros((3, len(types), len(var)))
    for i, (name, (*_, kept)) in enumerate(types.items()):
        home, own = TISSUE_OF[name], name not in ALIKE
        background = TISSUE_SD * scale * draws["tissue"][home]
        plain[i] = kept[home] * background
        plain[i] += scale * (lineage_sd * draws["lineage"][home] + own * TYPE_SD * draws["type"][name])
        plain[i] += (marker == name) * var["truth_marker_effect"] + strength.get(name, 1.0) * var["truth_programme"]
        normal[i] = background
        for module, part in kept.items():
            if module != "squamous":
                plain[i] += part * (tissue == module) * effect
                normal[i] += (tissue == module) * effect
        squamous[i] = plain[i] + kept.get("squamous", 0) * (tissue == "squamous") * effect
        normal[i] += (name in SQUAMOUS_NORMALS) * (tissue == "squamous") * effect
    return means.reshape(-1, len(var))


def _sizes(n: int) -> np.ndarray:
    """Tumours and normals of each type, (33, 2)."""
    counts = np.array([row[:2] for row in TYPES.values()])
    return class_sizes(n, counts, np.minimum(counts, [FEWEST_TUMOURS, FEWEST_NORMALS]))


def class_sizes(n: int, counts: np.ndarray, fewest: np.ndarray) -> np.ndarray:
    """Aliquots of each type and tissue, shaped as `counts`: `n` in its proportions, none below the `fewest`."""
    sizes, scarce = fewest.copy(), counts == 0
    while True:
        left = n - sizes[scarce].sum()
        sizes[~scarce] = shares_to_counts(dict(enumerate(counts[~scarce])), left)
        if (sizes >= fewest).all():
            return sizes
        scarce |= sizes < fewest
        sizes[scarce] = fewest[scarce]


def aliquot_table(
    kind: str, types: Mapping[str, tuple], sizes: np.ndarray, seed: int
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """One row an aliquot, all tumours, then normals; its state (see `_means`); and the row of its patient's tumour.

    `sizes` has a row a type: how many tumours, how many normals.
    """
    rng, n, names = stream(kind, "aliquots", seed), sizes.sum(), np.array(list(types))
    number = np.repeat(np.arange(len(types)), sizes[:, 0])  # of its type
    rank = np.arange(number.size) - np.searchsorted(number, number)  # within the type; the first have a normal
    own = np.concatenate([np.arange(number.size), np.flatnonzero(rank < sizes[number, 1])])
    patient = np.array([f"P{k:05d}" for k in rng.permutation(number.size) + 1])
    share = np.array([SQUAMOUS_TUMOURS.get(name, 0.0) for name in types])
    squamous = rng.random_sample(number.size) < share[number]
    tissue = np.repeat(["tumour", "normal"], [number.size, n - number.size])
    state = np.where(tissue == "normal", 2, squamous[own]) * len(types) + number[own]
    place = number[own] + rng.random_sample(n)  # plates fill type by type; some aliquots are put anywhere
    place = np.where(rng.random_sample(n) < PLATE_STRAYS, rng.uniform(0, len(types), n), place)
    plate = np.argsort(np.argsort(place)) // PLATE_ALIQUOTS
    obs = pd.DataFrame({"patient": patient[own]})
    obs["cohort"] = pd.Categorical(names[number[own]], names)
    obs["tissue"] = pd.Categorical(tissue, ["tumour", "normal"])
    obs["plate"] = pd.Categorical([f"{k + 1:03d}" for k in plate])
    obs.index = [f"{name}-{word[0].upper()}" for name, word in zip(patient[own], tissue, strict=True)]
    return obs, state, own


def express(
    kind: str,
    obs: pd.DataFrame,
    state: np.ndarray,
    own: np.ndarray,
    parts: dict[str, np.ndarray],
    seed: int,
    excess: np.ndarray | None = None,
) -> np.ndarray:
    """Expression of the aliquots of `aliquot_table`, (n, genes), in log2.

    `excess` of an aliquot, 0 unless told, takes it that part of the way from the normal of its type to its own state
    beyond that state; a negative one leaves it short of it.
    """
    n, genes = len(obs), parts["noise"].size
    scores = stream(kind, "factors", seed).standard_normal((n, len(BROAD_SHARES) + SETS))
    X, rng = np.empty((n, genes), np.float32), stream(kind, "noise", seed)
    for row in X:
        row[:] = rng.standard_normal(genes)
    for values in (scores, X):
        for normal in np.flatnonzero(obs["tissue"] == "normal"):
            values[normal] = OWN * values[own[normal]] + np.sqrt(1 - OWN**2) * values[normal]
    plates = stream(kind, "plate effects", seed).standard_normal((obs["plate"].nunique(), genes))
    excess = np.zeros(n) if excess is None else excess
    _add_up(X, obs, state, scores, parts | {"plate": plates * parts["plate_sd"], "excess": excess})
    return X


def _add_up(
    X: np.ndarray, obs: pd.DataFrame, state: np.ndarray, scores: np.ndarray, parts: dict[str, np.ndarray]
) -> None:
    """Turn noise into expression, in place and a row at a time, which bounds memory.

    Products are of single numbers with rows, not of matrices, which would sum in another order on another machine.
    """
    parts = {name: values.astype(np.float32) if values.dtype == float else values for name, values in parts.items()}
    scale = np.where(obs["tissue"] == "normal", NORMAL_SCALE, 1.0).astype(np.float32)
    scores, plate, count = (scores * scale[:, None]).astype(np.float32), obs["plate"].cat.codes, len(BROAD_SHARES)
    types = len(parts["mean"]) // 3
    for row, x in enumerate(X):
        x *= scale[row] * parts["noise"]
        x += scores[row, count:][parts["number"]] * parts["set"]
        for score, loadings in zip(scores[row], parts["broad"], strict=False):
            x += score * loadings
        x += parts["plate"][plate.iloc[row]]
        x += parts["mean"][state[row]]
        if parts["excess"][row]:
            x += parts["excess"][row] * (parts["mean"][state[row]] - parts["mean"][2 * types + state[row] % types])
        np.maximum(x, 0, out=x)
        np.round(x, 2, out=x)
