"""Time and memory of assembling GDC's STAR count files into one .h5ad, beside pandas.

    python benchmarks/gdc_assembly.py [--files 200] [--samples 256 1024]
    python benchmarks/gdc_assembly.py --samples 11093          # the whole of TCGA: 6 GB of disk for a while

The files are generated in the exact format, 60,660 genes each, 4.4 MB; further samples are links to the same files.
Ours is `gdc_assembly.assemble`: every file checked and read, log2(x + 1), blocks written, one .h5ad written. The peer
reads with `read_csv(usecols=...)` a file, and `concat`s; it checks, transforms and saves nothing, which favours it.
Memory is the peak of a process of its own, with what importing gexlib takes; it is read from Linux's /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from gexlib.files import write_json
from gexlib.sources import gdc, gdc_assembly

GENES, ON_Y = 60_660, 44  # of GENCODE v36, and how many of them end in _PAR_Y
NAME = "gdc:TCGA-BENCH"
HEADER = (
    "# gene-model: GENCODE v36\ngene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\t"
    "tpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded\n"
    + "".join(f"{row}\t\t\t8120268\t8120268\t8120268\t\t\t\n" for row in gdc_assembly.OUTSIDE_GENES)
)
ASSEMBLE = f"""
import json, os, re, time
from pathlib import Path
from gexlib.sources import gdc_assembly
from gexlib.sources.gdc import load
def peak():  # MiB; getrusage would give that of the parent before the fork
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
found = dict(imports=peak())
start, cpu = time.perf_counter(), time.process_time()
path = gdc_assembly.assemble("{NAME}")
found |= dict(seconds=time.perf_counter() - start, cpu=time.process_time() - cpu, bytes=os.path.getsize(path))
found["peak"] = peak()
start = time.perf_counter()
cohort = load("{NAME}", genes="protein_coding")
found |= dict(opened=time.perf_counter() - start, genes=cohort.n_vars)
hundred = list(cohort.var_names[::198])
start = time.perf_counter()
found |= dict(few=load("{NAME}", genes=hundred).n_vars)
found["hundred"] = time.perf_counter() - start
print(json.dumps(found))
"""


def generate(folder: Path, n: int) -> list[Path]:
    """Files in GDC's format, about half of their values zero."""
    rng = np.random.default_rng(0)
    number = np.arange(GENES) % (GENES - ON_Y)
    ids = [f"ENSG{i:011d}.{1 + i % 20}" + "_PAR_Y" * (k >= GENES - ON_Y) for k, i in enumerate(number)]
    kinds = rng.choice(
        ["protein_coding", "lncRNA", "processed_pseudogene", "misc_RNA"], GENES, p=[0.33, 0.28, 0.2, 0.19]
    )
    length, level = rng.lognormal(7, 1, GENES), rng.normal(-1, 5, GENES)
    paths = []
    for k in range(n):
        reads = rng.poisson(np.exp2(level + rng.normal(0, 1, GENES)).clip(0, 1e6)) * (np.arange(GENES) < GENES - ON_Y)
        rate = reads / length
        tpm, fpkm = rate / rate.sum() * 1e6, rate / reads.sum() * 1e9
        table = pl.DataFrame([ids, [f"GENE{i}" for i in number], kinds, reads, reads // 2, reads - reads // 2,
                              tpm, fpkm, fpkm * 1.3])  # fmt: skip
        paths.append(folder / f"{k:06d}.tsv")
        body = table.write_csv(separator="\t", include_header=False, float_precision=4)
        paths[-1].write_text(HEADER + body, encoding="utf-8")
    return paths


def place(data: Path, paths: list[Path], n: int) -> None:
    """A cache of n samples, links to the same files, with its manifest."""
    os.environ["GEXLIB_DATA"] = str(data)
    hits = []
    for k in range(n):
        path, file_id = paths[k % len(paths)], f"{k:08x}-0000-4000-8000-000000000000"
        aliquot = {"submitter_id": f"TCGA-ZZ-{k:04X}-01A-11R-A000-07"}
        sample = {"submitter_id": f"TCGA-ZZ-{k:04X}-01A", "sample_type": "Primary Tumor"}
        sample["portions"] = [{"analytes": [{"aliquots": [aliquot]}]}]
        case = {"submitter_id": f"TCGA-ZZ-{k:04X}", "project": {"project_id": "TCGA-BENCH"}, "samples": [sample]}
        hits.append({"file_id": file_id, "file_size": path.stat().st_size, "cases": [case]})
        link = gdc.star_path(file_id)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    manifest = {"name": NAME, "release": "generated", "total": n, "files": hits}
    write_json(gdc.manifest_path(NAME), manifest)


def ours(folder: Path, paths: list[Path], n: int) -> dict:
    """One assembly in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        place(Path(data), paths, n)
        done = subprocess.run([sys.executable, "-c", ASSEMBLE], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)


def peer(paths: list[Path]) -> dict:
    """The same files through pandas."""
    start, cpu = time.perf_counter(), time.process_time()
    columns = ["gene_id", "tpm_unstranded"]
    read = [pd.read_csv(path, sep="\t", comment="#", usecols=columns, index_col=0).iloc[:, 0] for path in paths]
    shape = pd.concat(read, axis=1).shape
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "shape": shape}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200, help="files generated, and timed side by side")
    parser.add_argument("--samples", type=int, nargs="*", default=[256, 1024], help="sizes whose memory is measured")
    parser.add_argument("--folder", help="where the files are put (default: a temporary folder)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place_of_work:
        folder = Path(place_of_work)
        paths = generate(folder, chosen.files)
        load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        print(f"{len(paths)} files of {GENES:,} genes; {os.cpu_count()} cores, load average {load_before:.1f}")
        mine, theirs = ours(folder, paths, len(paths)), peer(paths)
        by = 1000 / len(paths)
        for who, found in (("ours", mine), ("pandas", theirs)):
            print(
                f"{who}: {found['seconds'] * by:.1f} s per 1,000 samples, {found['cpu'] * by:.1f} s of processor time"
            )
        wall, cpu = theirs["seconds"] / mine["seconds"], theirs["cpu"] / mine["cpu"]
        print(f"ours {wall:.1f} x as fast, {cpu:.1f} x by processor time")
        for n in chosen.samples:
            found = ours(folder, paths, n)
            size, time_of = found["bytes"] / 1e9, found["seconds"]
            print(f"{n:,} samples: {time_of:.0f} s, .h5ad {size:.2f} GB, peak {found['peak']:.0f} MiB (imports alone "
                  f"{found['imports']:.0f}); then {found['genes']:,} protein-coding genes open in "
                  f"{found['opened']:.1f} s, {found['few']} genes in {found['hundred']:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
