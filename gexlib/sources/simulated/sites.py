"""Simulated tumours and normals of eight organ sites, two of them rare, for study 03."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import make_cohort
from gexlib.sources.simulated.pancancer import TYPES, aliquot_table, class_sizes, express, gene_table
from gexlib.sources.simulated.parts import stream
from gexlib.sources.tcga import SITE_OF, sites_of

TYPICAL = 1.02  # median of the nine types measured
STRENGTH = {  # of the shared programme in each type, 1 in the mean of the seven tissues measured
    "BRCA": 1.57,
    "CHOL": 1.64,
    "ESCA": TYPICAL,
    "KICH": TYPICAL,
    "KIRC": 0.68,
    "KIRP": 1.02,
    "LIHC": 0.92,
    "LUAD": 1.39,
    "LUSC": 1.70,
    "PRAD": 0.36,
    "THCA": 0.61,
}
SITES = [site for site in dict.fromkeys(SITE_OF.values()) if site in {SITE_OF[name] for name in STRENGTH}]
RARE = ("CHOL", "ESCA")  # keep their TCGA size at any n
FEWEST = 20  # tumours, and normals, of every other type
SITE_SHARE, SITE_EFFECT = 0.05, 1.26  # of the genes, for each site; median log2
SITE_LINEAGE_SD = 0.38  # what the site programmes leave of the background that tumours of a tissue share
PURITY, PURITY_SD = 0.7, 0.15


def simulate_sites(n: int, genes: int, seed: int) -> anndata.AnnData:
    """Tumours and normals of eight organ sites, RNA-seq as log2(FPKM+1); `n` counts aliquots, at least 600.

    Genes, tissue modules, squamous module, markers, background, factors, plates and pairs are those of
    `simulate_pancancer`, of the 11 types that are here; each module and marker has its share of the genes there.
    "Measured" is on the same 1,410 TCGA aliquots, narrowed alike: d is mean tumour less mean normal of each of nine
    types with 20 normals or more, in seven tissues (breast, head and neck, kidney, liver, lung, prostate, thyroid).

    - *Aliquots*: the rare sites, bile duct (CHOL, 36 tumours and 9 normals) and oesophagus (ESCA, 162 and 11), keep
      their TCGA size at every `n`. The rest goes to the other nine types in TCGA proportions, with at least 20
      tumours and 20 normals of each: a normal is of a patient whose tumour is there.
    - *Shared programme*, all tumours against all normals as in pancancer, each type at its own strength. Measured:
      the slope of d on the mean d of the other tissues is 1.14 in BRCA, .83 HNSC, .49 KIRC, .74 KIRP, .67 LIHC, 1.01
      LUAD, 1.23 LUSC, .26 PRAD, .44 THCA and 1.19 in CHOL (nine normals, liver left out, as they are of liver). That
      mean holds more than what is shared, which lowers all slopes (their mean over tissues is .73), so a strength is
      the slope over .725; slopes so found again here are within .1 of those measured (CHOL 1.06), the covariance of
      two tissues .27 (.25). KICH and ESCA, not measured, have the median.
    - *Site programmes*: 5 % of the genes for each site, around 1.26 log2, either sign, in no other site and not
      planted otherwise. Measured: off that slope 5.0 % of the genes are over 1 log2 in one alone of the six sites that
      are here (1.5 in prostate to 9.4 in lung), around 1.26, about half of them up; the variance off it, beyond
      sampling, is .72. A Gaussian of that variance would have as many, so they are the far end of broad differences
      and no class of their own: the background that tumours of a tissue share gives up what the programmes carry (.38
      for .5). Here that variance is .75, and 6 % of the genes are over 1 in one site alone. That all sites have the
      same share is assumed.
    - *Purity*: a tumour aliquot's mean is normal + purity x (tumour - normal) on the log2 scale. Purity is of one beta
      distribution for all types, which is assumed, with a mean of about .7 and an SD of about .15 (Aran, Sirota and
      Butte 2015, Nature Communications 6:8971, consensus estimates of 21 TCGA types). What was measured contains the
      purity of the real tumours, so tumour effects are divided by .7: they hold as recorded at a purity of .7.
    """
    types = {name: TYPES[name] for name in STRENGTH}
    var, parts = gene_table("sites", types, genes, seed, STRENGTH, SITE_LINEAGE_SD)
    _add_site_programmes(var, parts, seed)
    obs, state, own = aliquot_table("sites", types, _sizes(n), seed)
    obs.insert(1, "site", sites_of(obs["cohort"]))
    obs["purity"] = _purity(obs["tissue"], seed)
    excess = np.where(obs["tissue"] == "tumour", obs["purity"] / PURITY - 1, 0.0)
    cohort = make_cohort(
        express("sites", obs, state, own, parts, seed, excess),
        obs,
        var,
        name=f"simulated:sites,n={n},genes={genes},seed={seed}",
        unit="log2(FPKM+1)",
        simulated=True,
        source=f"gexlib simulate('sites', n={n}, genes={genes}, seed={seed})",
        transforms=["drawn on the log2 scale", "rounded to two decimals"],
    )
    cohort.uns["truth"] = {
        "tissue modules": "var['truth_tissue']; log2 in the normal in var['truth_tissue_effect'], less in the tumour",
        "markers": "var['truth_marker'], the type; log2 in its tumours in var['truth_marker_effect'], 0 in all normals",
        "programme": "var['truth_programme'], log2 of a tumour against a normal at strength 1; strengths by type: "
        + ", ".join(f"{name} {strength}" for name, strength in STRENGTH.items()),
        "site programmes": "var['truth_site'], the site; log2 of its tumours against its normals in "
        "var['truth_site_effect'], 0 elsewhere",
        "purity": f"obs['purity']; a tumour of purity p has p / {PURITY} of all that tells its mean from the normal's",
        "background": "every gene also differs a little between all tissues and types; this is not recorded",
    }
    return cohort


def _add_site_programmes(var: pd.DataFrame, parts: dict[str, np.ndarray], seed: int) -> None:
    """Genes that only the tumours of one site move, written into `var` and the means; none is planted otherwise."""
    rng, genes = stream("sites", "site programmes", seed), len(var)
    free = rng.permutation(np.flatnonzero(~var["truth_planted"] & ~parts["quiet"]))
    each = max(1, int(round(SITE_SHARE * genes)))
    effect = SITE_EFFECT * np.exp(0.4 * rng.standard_normal(genes))
    effect *= np.where(rng.random_sample(genes) < 0.5, -1.0, 1.0)
    site = np.full(genes, "", object)
    site[free[: each * len(SITES)]] = np.repeat(np.array(SITES, object), each)
    var["truth_site"] = pd.Categorical(site, ["", *SITES])
    var["truth_site_effect"] = np.where(site != "", effect, 0.0)
    var["truth_planted"] |= site != ""
    for number, name in enumerate(STRENGTH):  # tumours, squamous or not
        parts["mean"][[number, len(STRENGTH) + number]] += var["truth_site_effect"].to_numpy() * (site == SITE_OF[name])


def _sizes(n: int) -> np.ndarray:
    """Tumours and normals of each type, (11, 2)."""
    sizes = np.array([TYPES[name][:2] for name in STRENGTH])
    common = ~np.isin(list(STRENGTH), RARE)
    left = n - sizes[~common].sum()
    sizes[common] = class_sizes(left, sizes[common], np.full_like(sizes[common], FEWEST))
    return sizes


def _purity(tissue: pd.Series, seed: int) -> np.ndarray:
    """Part of an aliquot that is tumour, to two decimals; 1 of a normal, which has nothing mixed in."""
    both = PURITY * (1 - PURITY) / PURITY_SD**2 - 1  # the two parameters of the beta distribution together
    purity, tumour = np.ones(len(tissue)), (tissue == "tumour").to_numpy()
    purity[tumour] = stream("sites", "purity", seed).beta(PURITY * both, (1 - PURITY) * both, tumour.sum()).round(2)
    return purity
