"""Gene sets: GMT files that are read or refused in one sentence, and the enrichment of a model's genes."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from gexlib import CohortError
from gexlib.genesets import coverage, enrichment, enrichment_by_class, read_gmt

GMT = "CELL_CYCLE\tna\tCDK1\tCCNB2\tAURKA\nHYPOXIA\t\tVEGFA\tENO1\tVEGFA\n"
GENES = [f"G{number}" for number in range(200)]
REAL_GMT = Path(os.environ.get("GEXLIB_REAL_DATA", "")) / "gene_sets" / "c2.cgp.v7.1.symbols.gmt.gz"
needs_gmt = pytest.mark.skipif(
    not (os.environ.get("GEXLIB_REAL_DATA") and REAL_GMT.is_file()),
    reason=f"GEXLIB_REAL_DATA is not set or holds no gene_sets/{REAL_GMT.name}",
)


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def sets():
    """Sets of 3 to 90 genes, some of which are in no background: {name: genes}."""
    rng = np.random.default_rng(0)
    known = GENES + [f"OTHER{number}" for number in range(50)]
    return {f"SET{size}": frozenset(rng.choice(known, size, replace=False)) for size in (3, 8, 20, 40, 90)}


# GMT files


@pytest.mark.parametrize("name", ["a.gmt", "a.gmt.gz", "a.txt"])
@pytest.mark.parametrize("text", [GMT, GMT.replace("\n", "\r\n"), "\ufeff" + GMT + "\n\n", GMT.replace("\n", "\t\t\n")])
def test_a_gmt_is_read_plain_or_gzipped(tmp_path, name, text):
    sets = read_gmt(write(tmp_path / name, text))
    assert sets == {"CELL_CYCLE": {"CDK1", "CCNB2", "AURKA"}, "HYPOXIA": {"VEGFA", "ENO1"}}
    assert list(sets) == ["CELL_CYCLE", "HYPOXIA"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "a.gmt",
            GMT + "SHORT\tno genes\n",
            "a.gmt, line 3: not a line of a GMT file.*found 'SHORT.*correct or remove",
        ),
        ("a.gmt", "SHORT\tno genes\t\t\n" + GMT, "a.gmt, line 1: not a line of a GMT file"),
        ("a.gmt", GMT + "\tna\tTP53\n", "a.gmt, line 3: not a line of a GMT file"),
        ("a.gmt", "gene,p\nTP53,0.1\n", "a.gmt, line 1: not a line of a GMT file.*found 'gene,p'"),
        ("a.gmt", GMT + GMT, "a.gmt, line 3: the set 'CELL_CYCLE' is there twice; rename or remove one"),
        ("a.gmt", "\n\n", "a.gmt: the file holds no gene set"),
        ("a.gmt", GMT.encode() + "GRÖSSE\tna\tTP53\n".encode("latin-1"), "a.gmt: this is no UTF-8 text"),
        ("a.gmt", GMT.encode("utf-16"), "a.gmt: this is no plain text"),
        ("a.gmt", "<!doctype html><p>MSigDB wants a login", "a.gmt: this is a web page, not data"),
        ("a.gmt", gzip.compress(GMT.encode())[:-20], "a.gmt: the gzip is cut off or damaged"),
    ],
)
def test_a_file_that_is_no_gmt_says_so_in_one_sentence(tmp_path, name, content, told):
    path = write(tmp_path / name, content)
    with pytest.raises(CohortError, match=told) as error:
        read_gmt(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CohortError, match="nowhere.gmt: no such file or directory; check the path"):
        read_gmt(tmp_path / "nowhere.gmt")


# enrichment


@pytest.mark.parametrize("markers", [GENES[:1], GENES[:30], GENES[40:199], GENES])
def test_p_and_odds_are_those_of_fishers_exact_test_greater(sets, markers):
    found = enrichment(markers, GENES, sets, smallest=1)
    assert len(found) == 5
    for name, row in found.iterrows():
        cut = sets[name] & set(GENES)
        a, b, c = (len(group) for group in (cut & set(markers), cut - set(markers), set(markers) - cut))
        expected = fisher_exact([[a, b], [c, 200 - a - b - c]], alternative="greater")
        assert (row["overlap"], row["size"]) == (a, a + b)
        assert row["expected"] == pytest.approx(len(markers) * (a + b) / 200)
        assert row["p"] == pytest.approx(expected.pvalue)
        assert row["odds ratio"] == pytest.approx(expected.statistic, nan_ok=True)


def test_a_planted_set_comes_first_and_q_corrects_for_the_others(sets):
    markers = sorted(sets["SET40"] & set(GENES))[:20]
    found = enrichment(markers, GENES, sets)
    assert found.index[0] == "SET40" and found["p"].is_monotonic_increasing
    assert found.loc["SET40", "overlap"] == 20 and found.loc["SET40", "q"] == pytest.approx(4 * found["p"].iloc[0])
    assert (found["q"] >= found["p"]).all()


def test_sets_are_cut_to_the_background_before_their_size_is_judged(sets):
    inside = len(sets["SET8"] & set(GENES))
    assert inside < 8 and "SET3" not in enrichment([], GENES, sets).index
    assert enrichment([], GENES, sets, smallest=inside).loc["SET8", "size"] == inside
    assert "SET8" not in enrichment([], GENES, sets, smallest=inside + 1).index


def test_genes_named_twice_count_once(sets):
    twice = enrichment(GENES[:30] * 2, GENES * 2, sets)
    pd.testing.assert_frame_equal(twice, enrichment(pd.Index(GENES[:30]), np.array(GENES), sets))


def test_no_markers_give_a_p_of_one(sets):
    found = enrichment([], GENES, sets)
    assert (found[["p", "q"]] == 1).all(axis=None) and (found[["overlap", "expected"]] == 0).all(axis=None)


def test_markers_that_the_model_never_had_are_named_with_the_nearest(sets):
    with pytest.raises(CohortError, match="2 of 3 markers are not in the background: 'G1O', 'g7' .*nearest: G1"):
        enrichment(["G1", "g7", "G1O"], GENES, sets)


def test_a_background_without_genes_is_refused(sets):
    with pytest.raises(CohortError, match="the background is empty"):
        enrichment([], [], sets)


@pytest.mark.parametrize("there", [True, False])
def test_sets_that_name_genes_otherwise_are_refused_with_an_example(sets, there):
    told = "none of the . gene sets has 5 genes or more among the 1 of the background.*background: 'ENSG00000141510'"
    with pytest.raises(CohortError, match=told):
        enrichment([], ["ENSG00000141510"], sets if there else {})


def test_classes_share_one_correction_over_all_tests_made(sets):
    markers = {"KIRC": sorted(sets["SET40"] & set(GENES))[:8], "ACC": GENES[:30], "normal": []}
    found = enrichment_by_class(markers, GENES, sets)
    assert list(found["class"].unique()) == list(markers) and len(found) == 3 * 4
    for name, genes in markers.items():
        alone = enrichment(genes, GENES, sets)
        part = found[found["class"] == name].drop(columns="class").set_index("set")
        pd.testing.assert_frame_equal(part.drop(columns="q"), alone.drop(columns="q"))
    assert found["q"][0] == pytest.approx(12 * found["p"].min()) and found["p"].idxmin() == 0


def test_the_class_of_a_strange_marker_is_named(sets):
    with pytest.raises(CohortError, match="^ACC: 1 of 1 markers are not in the background"):
        enrichment_by_class({"KIRC": [], "ACC": ["TP53"]}, GENES, sets)


def test_random_markers_pass_a_threshold_no_more_often_than_it_says():
    rng = np.random.default_rng(0)
    genes = np.array([f"G{number}" for number in range(2000)])
    sets = {f"S{k}": frozenset(rng.choice(genes, rng.integers(20, 300), replace=False)) for k in range(200)}
    markers = {f"class {k}": rng.choice(genes, 150, replace=False) for k in range(100)}
    found = enrichment_by_class(markers, genes, sets)
    # 20,000 tests: at most 20 and 1,000 are expected; three standard errors above
    assert 0 < (found["p"] < 0.001).sum() <= 20 + 3 * 20**0.5
    assert 500 < (found["p"] < 0.05).sum() <= 1000 + 3 * 1000**0.5
    assert found["q"].min() > 0.01


def test_coverage_is_the_share_of_each_set_that_the_genes_hold():
    found = coverage({"A": frozenset({"TP53", "MARS1"}), "B": frozenset({"MYCN"})}, ["TP53", "MARS", "MYCN"])
    assert found.to_dict() == {"A": 0.5, "B": 1.0}


@needs_gmt
def test_msigdb_c2_cgp_is_read_and_finds_a_set_among_its_own_genes():
    sets = read_gmt(REAL_GMT)
    assert len(sets) == 3297
    name = "WEST_ADRENOCORTICAL_TUMOR_MARKERS_UP"
    background = sorted(frozenset().union(*sets.values()))
    found = enrichment(sets[name], background, sets)
    assert found.index[0] == name and (coverage(sets, background) == 1).all()


def test_prepared_gene_sets_open_by_name_and_an_unknown_name_says_which_there_are(tmp_path, monkeypatch):
    (tmp_path / "gene_sets").mkdir()
    (tmp_path / "gene_sets" / "h.all.v6.2.symbols.gmt").write_text("ONE\tna\tTP53\tMYC\n")
    monkeypatch.setenv("GEXLIB_REAL_DATA", str(tmp_path))
    assert read_gmt("real:h.all.v6.2") == {"ONE": frozenset({"TP53", "MYC"})}
    with pytest.raises(CohortError, match=r"real:h.all.v7: no such gene sets .*nearest: h.all.v6.2"):
        read_gmt("real:h.all.v7")
    monkeypatch.delenv("GEXLIB_REAL_DATA")
    with pytest.raises(CohortError, match="GEXLIB_REAL_DATA names no folder"):
        read_gmt("real:h.all.v6.2")
