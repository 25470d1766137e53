"""Xena, Firehose and MSigDB in miniature: their files in their public forms, and a server of them that misbehaves."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import io
import socket
import struct
import tarfile
import time

from geo_server import GeoServer, _Handler

PATIENTS = ("TCGA-3X-AAV9", "TCGA-W5-AA2I", "TCGA-4G-AAZO", "TCGA-ZH-A8Y1")
ALIQUOTS = (  # two tumours of the first patient, a pair of the second
    "TCGA-3X-AAV9-01A-72R-A41I-07",
    "TCGA-3X-AAV9-01A-72R-A41J-07",
    "TCGA-W5-AA2I-01A-32R-A41I-07",
    "TCGA-W5-AA2I-11A-11R-A41I-07",
    "TCGA-4G-AAZO-01A-12R-A41I-07",
)
ENSEMBL = ("ENSG00000000003.13", "ENSG00000141510.14", "ENSG00000182378.12", "ENSGR0000182378.11")
SYMBOLS = ("TSPAN6", "TP53", "PLCXD1", "PLCXD1")
LINEAR = ((0.0, 1.0, 2.5, 1023.0, 7.0), (3.0, 0.25, 100.0, 8.5, 0.0), (15.0, 31.0, 63.0, 127.0, 255.0), (0.0,) * 5)
FIREHOSE_GENES = ("?|100130426", "?|100133144", "TP53|7157", "SLC35E2|728661", "SLC35E2|9906", "A1BG|1")
CLINICAL = {  # field -> values of the four patients, in the small letters of Firehose
    "admin.disease_code": ("chol", "chol", "chol", "chol"),
    "patient.bcr_patient_barcode": tuple(patient.lower() for patient in PATIENTS),
    "patient.gender": ("male", "female", "NA", "male"),
    "patient.age_at_initial_pathologic_diagnosis": ("61", "70", "55", "NA"),
    "patient.vital_status": ("alive", "dead", "alive", "alive"),
    "patient.days_to_death": ("NA", "119", "NA", "NA"),
    "patient.days_to_last_followup": ("30", "NA", "12", "400"),
    "patient.follow_ups.follow_up.vital_status": ("alive", "NA", "NA", "alive"),
    "patient.follow_ups.follow_up.days_to_last_followup": ("339", "NA", "NA", "380"),
    "patient.follow_ups.follow_up.days_to_death": ("NA", "NA", "NA", "NA"),
    "patient.follow_ups.follow_up-2.vital_status": ("dead", "NA", "NA", "NA"),
    "patient.follow_ups.follow_up-2.days_to_death": ("519", "NA", "NA", "NA"),
    "patient.stage_event.pathologic_stage": ("stage i", "stage ii", "NA", "stage i"),
}


def packed(text: str) -> bytes:
    """Text as a gzip without a date."""
    return gzip.compress(text.encode(), mtime=0)


def xena_matrix(ids=ENSEMBL, samples=ALIQUOTS, values=LINEAR, corner="Ensembl_ID", length=16, of=lambda x: x) -> str:
    """Genes x samples as Xena writes them; `length` cuts the barcodes, `of` transforms the linear values."""
    rows = ["\t".join([gene, *(f"{of(x):.6f}" for x in row)]) for gene, row in zip(ids, values, strict=True)]
    return "\n".join(["\t".join([corner, *(sample[:length] for sample in samples)]), *rows, ""])


def probemap() -> str:
    rows = [f"{gene}\t{symbol}\tchr1\t1\t2\t+" for gene, symbol in zip(ENSEMBL, SYMBOLS, strict=True)]
    return "\n".join(["id\tgene\tchrom\tchromStart\tchromEnd\tstrand", *rows, ""])


def firehose_expression(aliquots=ALIQUOTS, kind="normalized_count") -> str:
    """An expression file of Firehose: two header rows, SYMBOL|ENTREZ, linear values."""
    rows = [[gene, *(f"{i * 7.5 + k:.4f}" for k in range(len(aliquots)))] for i, gene in enumerate(FIREHOSE_GENES)]
    head = [["Hybridization REF", *aliquots], ["gene_id", *[kind] * len(aliquots)]]
    return "\n".join("\t".join(row) for row in [*head, *rows]) + "\n"


def firehose_clinical(fields=CLINICAL, header=True) -> str:
    """A merged_only clinical file: fields in rows, patients in columns, below a row of V1, V2, …"""
    rows = [["V1", *(f"V{i + 2}" for i in range(len(PATIENTS)))]] * header + [[k, *v] for k, v in fields.items()]
    return "\n".join("\t".join(row) for row in rows) + "\n"


def tar_of(files: dict[str, str], *others: tarfile.TarInfo) -> bytes:
    """A .tar.gz of the files, and of members that have no content, such as links."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        for member in others:
            tar.addfile(member)
    return memory.getvalue()


def firehose_archives(cohort="CHOL", expression=None, clinical=None) -> dict[str, bytes]:
    """Address -> content of the two archives of a cohort and of the md5 beside each."""
    stem = f"gdac.broadinstitute.org_{cohort}"
    task = "rnaseqv2__illuminahiseq_rnaseqv2__unc_edu__Level_3__RSEM_genes_normalized__data"
    of = {
        f"{stem}.Merge_{task}.Level_3.2016012800.0.0": {
            f"{cohort}.{task}.data.txt": expression or firehose_expression()
        },
        f"{stem}.Merge_Clinical.Level_1.2016012800.0.0": {
            f"{cohort}.merged_only_clinical_clin_format.txt": clinical or firehose_clinical(),
            f"{cohort}.clin.merged.txt": "not this one\n",
        },
    }
    served = {}
    for archive, files in of.items():
        content = tar_of({f"{archive}/{name}": text for name, text in files.items()} | {f"{archive}/MANIFEST.txt": ""})
        address = f"/{cohort}/20160128/{archive}.tar.gz"
        served[address] = content
        served[f"{address}.md5"] = f"{hashlib.md5(content).hexdigest()}  {archive}.tar.gz\n".encode()
    return served


class ArchiveServer(GeoServer):
    """The server of `geo_server` with more faults, each taken by one request for a file that is there.

    ``429`` and ``503`` (Retry-After of `retry_after`, a number or a date), ``moved`` (301 to another address of the
    same file), ``reset`` (half, then the connection is reset), ``chunked`` (half of a chunked answer, without its
    end), ``flip`` (whole, one byte wrong), ``403``, and those of GeoServer.
    """

    def __init__(self, files: dict[str, bytes]):
        super().__init__(files)
        self.RequestHandlerClass = _ArchiveHandler
        self.retry_after = "0"


def date_in(seconds: float) -> str:
    """A date for Retry-After."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


class _ArchiveHandler(_Handler):
    server: ArchiveServer

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.removeprefix("/moved"))
        fault = self.server.faults[0] if self.server.faults else ""
        if content is None or self.path.startswith("/moved"):  # takes no fault
            self.server.asked.append((self.path, self.headers.get("Range", "")))
            return self._answer(404, b"no such file") if content is None else self._answer(200, content)
        if fault not in ("429", "503", "moved", "reset", "chunked", "flip", "403"):
            return super().do_GET()
        self.server.faults.pop(0)
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        if fault in ("429", "503", "403"):
            retry = {"Retry-After": self.server.retry_after} if fault != "403" else {}
            return self._answer(int(fault), b"not now", headers=retry)
        if fault == "moved":
            return self._answer(301, b"", headers={"Location": f"/moved{self.path}"})
        if fault == "flip":
            return self._answer(200, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        half = content[: len(content) // 2]
        if fault == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(content) + half)
            return None
        self._answer(200, half, len(content))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        return None
