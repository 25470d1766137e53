"""GEO in miniature: one series in GEO's public forms, and a local server of it that can misbehave."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PLATFORM_COLUMNS = (
    "ID GB_LIST SPOT_ID seqname RANGE_GB RANGE_STRAND RANGE_START RANGE_STOP total_probes gene_assignment "
    "mrna_assignment category"
).split()
ASSIGNMENTS = {
    "2469252": "NM_005378 // MYCN // MYCN proto-oncogene // 2p24.3 // 4613",
    "2469253": "NM_005378 // MYCN // MYCN proto-oncogene // 2p24.3 // 4613 /// ENST00000281043 // MYCN // --- // ---",
    "2547018": "NM_004304 // ALK // ALK receptor tyrosine kinase // 2p23.2 // 238",
    "2315633": "NM_198317 // KLHL17 // kelch like 17 // 1p36.33 // 339451 /// NM_032129 // PLEKHN1 // PHN1 // 1p36.33",
    "2315251": "---",
    "2315373": "",
}
VALUES = {  # six probes x five samples, log2
    "2469252": (7.0, 8.0, 9.0, 12.0, 6.0),
    "2469253": (5.0, 6.0, 7.0, 10.0, 4.0),
    "2547018": (6.5, 6.25, 7.75, 9.5, 5.5),
    "2315633": (4.0, 4.5, 5.0, 5.5, 3.0),
    "2315251": (2.0, 2.5, 3.0, 3.5, 1.0),
    "2315373": (3.0, 3.5, 3.25, 2.75, 3.0),
}
FIELDS = ("mycn_amplification", "inss", "age_at_diagnosis(days)", "profression_free_survival_time(days)")
CLINICAL = {  # the third sample lacks the field that stands before the stage, so its later fields move up
    "GSM2259101": ("no", "st1", "120", "900"),
    "GSM2259102": ("no", "st2", "410", "NA"),
    "GSM2259103": (None, "NA", "77", "33"),
    "GSM2259104": ("yes", "st4", "1500", "61"),
    "GSM2259105": ("NA", "st4s", "50", "2000"),
}
CHARACTERISTICS = {
    gsm: [f"{field}: {value}" for field, value in zip(FIELDS, values, strict=True) if value is not None]
    for gsm, values in CLINICAL.items()
}
SERIES = (
    ("title", "Neuroblastoma primary tumours"),
    ("geo_accession", "GSE85047"),
    ("last_update_date", "Mar 25 2019"),
    ("supplementary_file", "ftp://ftp.ncbi.nlm.nih.gov/geo/series/GSE85nnn/GSE85047/suppl/GSE85047_RAW.tar"),
)
PROCESSING = "RMA-sketch normalisation at the core transcript-cluster level, batch corrected"
QUERY = "/query?acc=GPL5175&targ=self&form=text&view=data"
MATRIX = "/series/GSE85nnn/GSE85047/matrix/GSE85047_series_matrix.txt.gz"


def platform_table(column: str = "gene_assignment") -> str:
    """The table of GPL5175, between its marks; `column` renames the one with the symbols."""
    names = [column if name == "gene_assignment" else name for name in PLATFORM_COLUMNS]
    rows = [[probe, *["x"] * 8, text, "---", "main"] for probe, text in ASSIGNMENTS.items()]
    table = "\n".join("\t".join(row) for row in [names, *rows])
    described = "\n".join(f"#{name} = " for name in names)
    return f"^PLATFORM = GPL5175\n{described}\n!platform_table_begin\n{table}\n!platform_table_end\n"


def series_matrix(values: dict[str, tuple] | None = None, processing: str = PROCESSING) -> str:
    """The series matrix of GSE85047; `values` may be empty, as it is where the expression is in another file."""
    values = VALUES if values is None else values
    depth = max(map(len, CHARACTERISTICS.values()))
    fields = [[*texts, *[""] * (depth - len(texts))] for texts in CHARACTERISTICS.values()]
    rows = [
        ("title", [f"NRC_{i}" for i in range(1, 6)]),
        ("geo_accession", list(CHARACTERISTICS)),
        ("source_name_ch1", ["primary tumour"] * 5),
        *[("characteristics_ch1", list(row)) for row in zip(*fields, strict=True)],
        ("data_processing", [processing] * 5),
        ("platform_id", ["GPL5175"] * 5),
    ]
    quoted = [f"!Series_{key}\t{text!r}".replace("'", '"') for key, text in SERIES] + [""]
    quoted += ["\t".join([f"!Sample_{key}", *(f'"{word}"' for word in words)]) for key, words in rows]
    head = "\t".join(f'"{word}"' for word in ("ID_REF", *CHARACTERISTICS))
    table = ["\t".join([f'"{probe}"', *map(str, row)]) for probe, row in values.items()]
    return "\n".join([*quoted, "!series_matrix_table_begin", head, *table, "!series_matrix_table_end", ""])


def soft_family(platform: str | None = None, others: tuple[str, ...] = ()) -> str:
    """The same series as a SOFT family file; the samples in `others` are on GPL96, with values too."""
    lines = ["^DATABASE = GeoMiame", "!Database_name = Gene Expression Omnibus (GEO)", "^SERIES = GSE85047"]
    lines += [f"!Series_{key} = {text}" for key, text in SERIES]
    lines += [f"!Series_sample_id = {gsm}" for gsm in CHARACTERISTICS]
    lines.append((platform or platform_table()).rstrip())
    for column, (gsm, texts) in enumerate(CHARACTERISTICS.items()):
        lines += [f"^SAMPLE = {gsm}", f"!Sample_title = NRC_{column + 1}", "!Sample_source_name_ch1 = primary tumour"]
        lines += [f"!Sample_characteristics_ch1 = {text}" for text in texts]
        lines += [f"!Sample_platform_id = {'GPL96' if gsm in others else 'GPL5175'}"]
        lines += [f"!Sample_data_processing = {PROCESSING}", f"!Sample_data_row_count = {len(VALUES)}"]
        lines += ["#ID_REF = ", "#VALUE = log2 signal", "!sample_table_begin", "ID_REF\tVALUE"]
        lines += [f"{probe}\t{row[column]}" for probe, row in VALUES.items()] + ["!sample_table_end"]
    return "\n".join(lines) + "\n"


class GeoServer(ThreadingHTTPServer):
    """Serves `files` (address -> bytes) from 127.0.0.1; each request takes the next of `faults`, or none.

    Faults: ``404``, ``503``, ``html`` (a web page with status 200), ``truncate`` (half of what was promised),
    ``stall`` (half, then silence), ``whole`` (Range ignored). `asked` holds (address, Range header) of every request.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes] | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files or {MATRIX: gzip.compress(series_matrix().encode()), QUERY: platform_table().encode()}
        self.faults: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> GeoServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: GeoServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        content = self.server.files.get(self.path)
        if fault == "503":
            self._answer(503, b"busy")
        elif fault == "404" or content is None:
            self._answer(404, b"no such file")
        elif fault == "html":
            self._answer(200, b"<!DOCTYPE html>\n<html><body>Please try again later</body></html>")
        else:
            start = 0 if fault == "whole" else int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
            self._send(content, start, fault) if start <= len(content) else self._answer(416, b"")

    def _send(self, content: bytes, start: int, fault: str) -> None:
        rest = content[start:]
        ranged = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        short = fault in ("truncate", "stall")
        self._answer(206 if start else 200, rest[: len(rest) // 2] if short else rest, len(rest), ranged)
        if fault == "stall":
            self.server.released.wait(5)

    def _answer(self, status: int, body: bytes, length: int | None = None, headers: dict | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body) if length is None else length)} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_) -> None:
        pass
