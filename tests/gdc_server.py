"""GDC's API in miniature: /status, /files with filters and pages, /data; and a local server that can misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COLUMNS = (
    "gene_id gene_name gene_type unstranded stranded_first stranded_second tpm_unstranded fpkm_unstranded "
    "fpkm_uq_unstranded"
).split()
GENES = (  # Ensembl id with version, symbol, type; the last is the first's copy on Y
    ("ENSG00000182378.15", "PLCXD1", "protein_coding"),
    ("ENSG00000141510.18", "TP53", "protein_coding"),
    ("ENSG00000171862.13", "PTEN", "protein_coding"),
    ("ENSG00000252830.1", "Y_RNA", "misc_RNA"),
    ("ENSG00000206585.2", "Y_RNA", "misc_RNA"),
    ("ENSG00000229807.13", "XIST", "lncRNA"),
    ("ENSG00000182378.15_PAR_Y", "PLCXD1", "protein_coding"),
)
STATUS = {"commit": "c0ffee", "data_release": "Data Release 45.0 - December 04, 2025", "status": "OK", "tag": "8.5.0"}
PAGE = b"<!DOCTYPE html>\n<html><body>GDC is under maintenance</body></html>"


def counts_of(number: int) -> list[int]:
    """The reads of each gene in the file of this number; none on Y."""
    return [10 * number + 3 * gene for gene in range(len(GENES) - 1)] + [0]


def star_file(number: int, genes: tuple = GENES) -> bytes:
    """An augmented STAR count file; TPM is the count / 2, FPKM / 4, FPKM-UQ / 8."""
    rows = [f"{name}\t\t\t{n}\t{n}\t{n}\t\t\t" for name, n in outside_genes(number).items()]
    for gene, n in zip(genes, counts_of(number), strict=False):
        scaled = "\t".join(f"{n / by:.4f}" for by in (2, 4, 8))
        rows.append("\t".join([*gene, str(n), str(n // 2), str(n - n // 2), scaled]))
    return "\n".join(["# gene-model: GENCODE v36", "\t".join(COLUMNS), *rows, ""]).encode()


def outside_genes(number: int) -> dict[str, int]:
    """The reads in the four rows before the first gene."""
    return {"N_unmapped": 1000 + number, "N_multimapping": 200, "N_noFeature": 30, "N_ambiguous": 4}


def uuid_of(number: int) -> str:
    """The UUID of the file of this number; their order is not that of the numbers."""
    return f"{(number * 7919) % 9973:08x}-0000-4000-8000-{number:012x}"


def hit_of(number: int, content: bytes, project: str = "TCGA-BRCA") -> dict:
    """What the files endpoint says of a file: every third of its patients is dead, every fifth file a normal."""
    patient, dead, normal = f"TCGA-A1-{number:04d}", number % 3 == 0, number % 5 == 0
    sample = f"{patient}-{'11' if normal else '01'}A"
    demographic = {"vital_status": "Dead" if dead else "Alive", "gender": "female", "age_at_index": 40 + number}
    aliquot = {"submitter_id": f"{sample}-11R-A00Z-07"}
    return {
        "id": uuid_of(number),
        "file_id": uuid_of(number),
        "file_name": f"{uuid_of(number)}.rna_seq.augmented_star_gene_counts.tsv",
        "md5sum": hashlib.md5(content).hexdigest(),
        "file_size": len(content),
        "cases": [
            {
                "submitter_id": patient,
                "project": {"project_id": project},
                "demographic": demographic | ({"days_to_death": 100 + number} if dead else {}),
                "diagnoses": [{"days_to_last_follow_up": 50}, {"days_to_last_follow_up": None}],
                "follow_ups": [{"days_to_follow_up": 10}, {"days_to_follow_up": 200 + number}],
                "samples": [
                    {
                        "submitter_id": sample,
                        "sample_type": "Solid Tissue Normal" if normal else "Primary Tumor",
                        "tissue_type": "Normal" if normal else "Tumor",
                        "portions": [{"analytes": [{"aliquots": [aliquot]}]}],
                    }
                ],
            }
        ],
    }


class GdcServer(ThreadingHTTPServer):
    """Serves `hits` and `contents` (UUID -> bytes) from 127.0.0.1.

    `faults` holds, for an address (``/status``, ``/files``, ``/data/<uuid>``), what its next requests meet: ``404``,
    ``503``, ``429`` (Retry-After 0.2 s), ``429 date``, ``429 long`` (an hour), ``html`` (a web page with status 200),
    ``truncate`` (half of what was promised), ``short`` (half, and no more was promised), ``stall`` (half, then
    silence), ``cut`` (the connection closed before any answer), ``wrong`` (other bytes of the same length), ``moved``
    (301), ``grow`` (a page whose total is one more), ``twice`` (a page with the first file), ``empty`` (a page without
    files), ``form`` (JSON of another form), or nothing. `asked` holds (method, address, time) of every request.
    """

    daemon_threads = True

    def __init__(self, files: int = 5, project: str = "TCGA-BRCA"):
        super().__init__(("127.0.0.1", 0), _Handler)
        contents = {number: star_file(number) for number in range(1, files + 1)}
        self.hits = [hit_of(number, content, project) for number, content in contents.items()]
        self.contents = {uuid_of(number): content for number, content in contents.items()}
        self.faults: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str, float]] = []
        self.queries: list[dict] = []
        self.warnings: dict = {}
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> GdcServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_) -> None:
        pass

    def fetched(self) -> list[str]:
        """The UUIDs whose bytes were asked for, in order."""
        return [address.rpartition("/")[2] for _, address, _ in self.asked if address.startswith("/data/")]

    def page(self, asked: dict, fault: str) -> dict:
        """One page of the hits that the filters let through, in the order of UUIDs."""
        project = asked["filters"]["content"][0]["content"]
        inside = {"cases.project.project_id": lambda p: p, "cases.project.program.name": lambda p: p.split("-")[0]}
        of = inside[project["field"]]
        found = [h for h in self.hits if of(h["cases"][0]["project"]["project_id"]) in project["value"]]
        found.sort(key=lambda hit: hit["file_id"])
        start, size = asked["from"], asked["size"]
        hits = {"twice": found[:size], "empty": []}.get(fault, found[start : start + size])
        pagination = {"count": len(hits), "from": start, "size": size, "total": len(found) + (fault == "grow")}
        return {"data": {"hits": hits, "pagination": pagination}, "warnings": self.warnings}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        server, body = self.server, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with server.lock:
            server.asked.append((method, self.path, time.monotonic()))
            address = self.path.replace("/moved", "")
            waiting = server.faults.get(self.path, [])
            fault = waiting.pop(0) if waiting else ""
        if address == "/status":
            content = json.dumps(STATUS).encode()
        elif address == "/files" and method == "POST":
            server.queries.append(json.loads(body))
            content = json.dumps(server.page(json.loads(body), fault)).encode()
        else:
            content = server.contents.get(address.removeprefix("/data/"))
        self._answer(fault, content)

    def _answer(self, fault: str, content: bytes | None) -> None:
        half = b"" if content is None else content[: len(content) // 2]
        if fault == "404" or content is None:
            self._send(404, b'{"message": "not found"}')
        elif fault == "503":
            self._send(503, b"busy")
        elif fault.startswith("429"):
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 1))
            after = {"429": "0.2", "429 date": date, "429 long": "3600"}[fault]
            self._send(429, b"slow down", {"Retry-After": after})
        elif fault == "moved":
            self._send(301, b"", {"Location": f"{self.server.url}/moved{self.path}"})
        elif fault == "cut":
            self.close_connection = True
        elif fault in ("truncate", "stall"):
            self._send(200, half, {"Content-Length": str(len(content))})
            self.server.released.wait(5 if fault == "stall" else 0)
        else:
            other = {"html": PAGE, "short": half, "wrong": content[::-1], "form": b'{"hits": []}'}
            self._send(200, other.get(fault, content))

    def _send(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_) -> None:
        pass
