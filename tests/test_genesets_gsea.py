"""Gene set enrichment of rankings: scores and chance as in GSEA, planted sets found, the same however it is run."""

import numpy as np
import pandas as pd
import pytest
from gseapy import prerank

from gexlib import CohortError
from gexlib.genesets import gsea, gsea_per_patient, indicators, sets_of_modules

GENES = pd.Index([f"G{number}" for number in range(600)])
PATIENTS = [f"P{number}" for number in range(12)]


@pytest.fixture(scope="module")
def sets():
    """Twenty sets of 15 to 80 genes: {name: genes}."""
    rng = np.random.default_rng(0)
    return {f"SET{k:02d}": frozenset(rng.choice(GENES, size, replace=False)) for k, size in enumerate(range(15, 95, 4))}


@pytest.fixture(scope="module")
def planted(sets):
    """Scores like saliencies (12, 600), none negative; SET10 raised in every third patient, SET15 lowered in P1."""
    scores = np.random.default_rng(1).exponential(size=(len(PATIENTS), len(GENES)))
    scores[::3, GENES.isin(sets["SET10"])] += 1.5
    scores[1, GENES.isin(sets["SET15"])] *= 0.05
    return pd.DataFrame(scores, index=PATIENTS, columns=GENES)


def running_sum(score, inside, weight):
    """The Kolmogorov-Smirnov running sum of Subramanian et al. 2005, gene by gene, with its largest deviation."""
    order = np.argsort(-score)
    up = np.abs(score[order]) ** weight * inside[order]
    steps = up / up.sum() - ~inside[order] / (~inside).sum()
    total = np.cumsum(steps)
    return total[np.argmax(np.abs(total))]


# the score


def test_the_score_by_hand():
    score = np.array([5.0, 4, 3, 2, 1, 0, -1, -2, -3, -6])
    genes = list("ABCDEFGHIJ")
    sets = {"ACD": frozenset("ACD"), "HJ": frozenset("HJ"), "all but one": frozenset("ABCDEFGHI"), "all": set(genes)}
    found = gsea(score, genes, sets, smallest=2, permutations=50)
    # up 5/10, down 1/7, up 3/10 and 2/10; then down for good
    assert found.loc["ACD", "es"] == pytest.approx(1 - 1 / 7)
    # down 7/8, up 2/8, down 1/8, up 6/8
    assert found.loc["HJ", "es"] == pytest.approx(-7 / 8)
    assert found.loc["all but one", "es"] == pytest.approx(1)
    assert found["leading edge"].to_dict() == {"ACD": 1, "HJ": 1, "all but one": 1}
    assert found["size"].to_dict() == {"ACD": 3, "HJ": 2, "all but one": 9}


@pytest.mark.parametrize("weight", [0, 1, 2])
def test_scores_are_the_largest_deviation_of_the_running_sum(sets, weight):
    score = np.random.default_rng(2).standard_normal(len(GENES))
    found = gsea(score, GENES, sets, weight=weight, permutations=10)
    for name, genes in sets.items():
        assert found.loc[name, "es"] == pytest.approx(running_sum(score, GENES.isin(genes), weight))


@pytest.mark.parametrize("signed", [True, False])
def test_scores_and_chance_are_those_of_gseapy(sets, signed):
    rng = np.random.default_rng(3)
    score = pd.Series(rng.standard_normal(len(GENES)) if signed else rng.exponential(size=len(GENES)), GENES, name="x")
    ours = gsea(score, GENES, sets)
    plain = {name: list(genes) for name, genes in sets.items()}
    theirs = prerank(score, plain, min_size=15, max_size=500, permutation_num=4000, threads=1, seed=1, no_plot=True)
    theirs = theirs.res2d.set_index("Term").loc[ours.index]
    np.testing.assert_allclose(ours["es"], theirs["ES"].astype(float))
    # means of 2,000 random sets or more; p of as many: five standard errors
    np.testing.assert_allclose(ours["nes"], theirs["NES"].astype(float), rtol=0.05)
    np.testing.assert_allclose(ours["p"], theirs["NOM p-val"].astype(float), atol=5 * 0.5 / 2000**0.5)
    edge = [len(genes.split(";")) / size for genes, size in zip(theirs["Lead_genes"], ours["size"], strict=True)]
    np.testing.assert_allclose(ours["leading edge"], edge)


def test_a_set_whose_genes_all_score_zero_counts_them_alike():
    score = np.r_[np.linspace(9, 1, 20), np.zeros(20)]
    genes = [f"G{number}" for number in range(40)]
    zero = {"zero": set(genes[20:38])}
    alike = gsea(score, genes, zero, permutations=10, weight=0)
    assert gsea(score, genes, zero, permutations=10).loc["zero", "es"] == alike.loc["zero", "es"] <= -20 / 22


# what is found


def test_planted_sets_are_found_where_they_are_planted_and_not_elsewhere(planted, sets):
    table = gsea_per_patient(planted, GENES, sets, permutations=2000)
    assert len(table) == 12 * 20 and table.attrs["left out"] == []
    assert list(table["patient"].unique()) == PATIENTS and list(table["set"].unique()) == list(sets)
    up = table[table["set"] == "SET10"].set_index("patient")
    assert (up.loc[PATIENTS[::3], "nes"] > 1.3).all() and (up.loc[PATIENTS[::3], "q"] < 0.05).all()
    traits = indicators(table)
    assert traits.dtypes.eq(bool).all() and traits.index.tolist() == PATIENTS and traits.columns.tolist() == list(sets)
    assert traits.index[traits["SET10"]].tolist() == PATIENTS[::3]
    assert traits.drop(columns="SET10").to_numpy().mean() < 0.02
    assert not indicators(table, level=0).any(axis=None)


def test_a_set_at_the_bottom_is_no_trait(planted, sets):
    signed = planted.loc[["P1"]] - 1
    signed.loc["P1", GENES.isin(sets["SET15"])] -= 1
    table = gsea_per_patient(signed, GENES, sets, permutations=2000)
    low = table.set_index("set").loc["SET15"]
    assert low["es"] < 0 and low["nes"] < -1.3 and low["q"] < 0.05
    assert not indicators(table)["SET15"].any()


def test_a_deviation_that_no_random_set_shares_has_p_of_one_and_no_nes():
    score = np.r_[np.linspace(9, 8, 60), np.full(40, 1e-9)]
    genes = [f"G{number}" for number in range(100)]
    one = gsea(score, genes, {"bottom": set(genes[60:])}, permutations=200).loc["bottom"]
    assert one["es"] == pytest.approx(-1) and one["p"] == 1 and np.isnan(one["nes"])


def test_q_is_benjamini_hochberg_within_the_patient_and_p_is_never_zero(planted, sets):
    table = gsea_per_patient(planted, GENES, sets, permutations=200)
    assert table["p"].min() >= 1 / 201 and table["p"].min() < 1 / 190
    for _, rows in table.groupby("patient"):
        p = np.sort(rows["p"])
        q = np.minimum.accumulate((p * 20 / np.arange(1, 21))[::-1])[::-1]
        np.testing.assert_allclose(np.sort(rows["q"]), np.minimum(q, 1))


@pytest.mark.parametrize("kind", ["positive", "signed", "mostly zero"])
def test_random_rankings_pass_a_threshold_no_more_often_than_it_says(sets, kind):
    rng = np.random.default_rng(4)
    scores = rng.standard_normal((200, len(GENES)))
    scores = {"positive": np.abs(scores), "signed": scores, "mostly zero": np.where(scores > 1, scores, 0)}[kind]
    table = gsea_per_patient(scores, GENES, sets, permutations=500)
    # 4,000 tests of 20 sets that share genes, 200 patients; three standard errors and more
    assert (table["p"] < 0.05).mean() == pytest.approx(0.05, abs=0.013)
    assert table["p"].mean() == pytest.approx(0.5, abs=0.02)
    any_q = (table["q"] < 0.05).groupby(table["patient"]).any().mean()
    assert any_q < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


# how it is run


def test_neither_threads_nor_other_patients_nor_any_order_change_a_patients_result(planted, sets):
    options = {"permutations": 100, "seed": 3}
    table = gsea_per_patient(planted, GENES, sets, workers=1, **options)
    pd.testing.assert_frame_equal(table, gsea_per_patient(planted, GENES, sets, workers=2, **options))
    backwards = planted.iloc[::-2, ::-1]
    other = gsea_per_patient(backwards, backwards.columns, sets, workers=3, **options)
    assert list(other["patient"].unique()) == PATIENTS[::-2]
    for patient, rows in other.groupby("patient"):
        expected = table[table["patient"] == patient].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), expected)
    assert not table["p"].equals(gsea_per_patient(planted, GENES, sets, permutations=100, seed=4)["p"])


def test_equal_scores_are_ranked_alike_each_time_and_in_another_order_for_each_patient(sets):
    scores = pd.DataFrame(0.0, index=PATIENTS, columns=GENES)
    scores.iloc[:, :30] = 1.0
    table = gsea_per_patient(scores, GENES, sets, permutations=100)
    pd.testing.assert_frame_equal(table, gsea_per_patient(scores, GENES, sets, permutations=100))
    assert (table.groupby("set")["es"].nunique() > 1).all()


def test_patients_with_constant_scores_are_left_out_and_named(planted, sets):
    scores = planted.copy()
    scores.loc["P2"], scores.loc["P7"] = 0.0, 0.3
    table = gsea_per_patient(scores, GENES, sets, permutations=100)
    assert table.attrs["left out"] == ["P2", "P7"]
    rest = gsea_per_patient(planted, GENES, sets, permutations=100)
    rest = rest[~rest["patient"].isin(["P2", "P7"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, rest, check_flags=False)
    assert indicators(table).index.tolist() == [name for name in PATIENTS if name not in ("P2", "P7")]


def test_an_array_has_numbers_for_patients_and_one_ranking_is_sorted_by_p(planted, sets):
    table = gsea_per_patient(planted.to_numpy()[:2], list(GENES), sets, permutations=50)
    assert table["patient"].unique().tolist() == [0, 1]
    one = gsea(planted.iloc[0], GENES, sets)
    assert one.index.name == "set" and one["p"].is_monotonic_increasing and one.index[0] == "SET10"
    pd.testing.assert_frame_equal(one, gsea(planted.iloc[0].to_numpy(), GENES, sets))


def test_sets_are_cut_to_the_genes_before_their_size_is_judged(planted, sets):
    some = planted.iloc[:2, :300]
    table = gsea_per_patient(some, some.columns, sets, smallest=10, largest=30, permutations=20)
    inside = {name: len(genes & set(some.columns)) for name, genes in sets.items()}
    expected = {name: size for name, size in inside.items() if 10 <= size <= 30}
    assert 2 < len(expected) < 20
    assert table[table["patient"] == "P0"].set_index("set")["size"].to_dict() == expected


def test_modules_become_sets():
    modules = pd.Series(["B", "", "A", "none", "B", None], index=list("uvwxyz"))
    assert sets_of_modules(modules) == {"A": {"w"}, "B": {"u", "y"}}
    ordered = pd.Categorical(modules, ["B", "A", "", "none", "unused"])
    assert list(sets_of_modules(pd.Series(ordered, modules.index))) == ["B", "A"]
    assert sets_of_modules(pd.Series([3, 0, 3], index=list("abc"))) == {"0": {"b"}, "3": {"a", "c"}}
    with pytest.raises(CohortError, match="none of the 2 genes is in a module"):
        sets_of_modules(pd.Series(["", "none"], index=["a", "b"]))


# what is refused


def changed(scores, row, column, value):
    scores = scores.copy()
    scores.iloc[row, column] = value
    return scores


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: (s.iloc[0], GENES), r"scores have the shape \(600,\); expected \(patients, 600\)"),
        (lambda s: (s.iloc[:, :9], GENES), r"scores have the shape \(12, 9\); expected \(patients, 600\)"),
        (lambda s: (s.iloc[:, ::-1], GENES), "column 0 of the scores is 'G599' and gene 0 is 'G0'; give the genes in"),
        (lambda s: (s.to_numpy(), ["G5", *GENES[1:]]), "the gene 'G5' is there twice; name each gene once"),
        (lambda s: (s.set_axis(["P1", *PATIENTS[1:]]), GENES), "the patient 'P1' is there twice; name each patient"),
        (lambda s: (changed(s, 2, 7, np.nan), GENES), "'P2', gene 'G7': the score is nan; expected a finite number"),
        (lambda s: (changed(s, 3, 8, np.inf), GENES), "'P3', gene 'G8': the score is inf"),
        (lambda s: (s * 0, GENES), "scores of each of the 12 rows are constant: there is nothing to rank"),
        (lambda s: (s.to_numpy(), GENES.str.lower()), "none of the 20 gene sets has 15 to 500 genes among the 600"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_one_sentence(planted, sets, change, told):
    scores, genes = change(planted)
    with pytest.raises(CohortError, match=told) as error:
        gsea_per_patient(scores, genes, sets)
    assert "\n" not in str(error.value)


def test_a_matrix_is_no_one_ranking_and_no_permutation_no_chance(planted, sets):
    with pytest.raises(CohortError, match=r"score has the shape \(12, 600\); expected one number for every gene"):
        gsea(planted, GENES, sets)
    with pytest.raises(ValueError, match="permutations=0: expected 1 or more"):
        gsea(planted.iloc[0], GENES, sets, permutations=0)


def test_tables_of_two_labels_are_not_mixed(planted, sets):
    table = gsea_per_patient(planted, GENES, sets, permutations=20)
    with pytest.raises(CohortError, match="patient 'P0': the set 'SET00' is there twice; give the table of one label"):
        indicators(pd.concat([table, table]))
