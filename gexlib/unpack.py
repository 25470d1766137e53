"""Files taken out of downloaded archives, which are looked through before anything is written."""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from gexlib.download import FetchError, forget, record
from gexlib.files import written_whole


def unpack(archive: Path, wanted: re.Pattern) -> Path:
    """Place the one file of an archive whose name matches `wanted` beside it, and record its checksum.

    All members are looked at first: an archive that holds a link, a device or a path that leads out of its own folder
    is refused as a whole and removed, as is one that is damaged or lacks the file.

    Raises
    ------
    FetchError : the archive was refused; it names the member
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = tar.getmembers()
            found = [member for member in members if wanted.fullmatch(PurePosixPath(member.name).name)]
            fault = next(filter(None, map(_fault_of, members)), "")
            if not fault and (len(found) != 1 or not found[0].isreg()):
                fault = f"holds {len(found)} files like {wanted.pattern}, and one is expected"
            if not fault:
                path = archive.with_name(PurePosixPath(found[0].name).name)
                if not path.is_file():
                    with written_whole(path) as temporary, open(temporary, "wb") as stream:
                        shutil.copyfileobj(tar.extractfile(found[0]), stream)
                    record(path, f"member {found[0].name} of {archive.name}")
                return path
    except (tarfile.TarError, EOFError, zlib.error) as error:
        fault = f"is no whole tar archive ({error})"
    forget(archive)
    raise FetchError(
        f"{archive.name} {fault}; nothing was taken out of it and it was removed: fetch it again, or report it."
    )


def _fault_of(member: tarfile.TarInfo) -> str:
    """What makes a member of an archive one not to unpack; empty for a plain file or folder inside."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.name):
        return f"holds '{member.name}', which would be written outside its folder"
    if member.issym() or member.islnk():
        return f"holds '{member.name}', a link to '{member.linkname}'"
    return "" if member.isreg() or member.isdir() else f"holds '{member.name}', a device"
