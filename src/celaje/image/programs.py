"""Programs out of packages, with the shared libraries that they need and nothing else.

What an ELF file needs stands in its dynamic section (DT_NEEDED, names) and in its program interpreter (PT_INTERP, a
path): System V ABI, chapter 5. Names are looked up where Debian's loader looks, in the architecture's library
directory, and where a program's own package keeps what only it uses.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from posixpath import dirname, join, normpath

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from celaje.errors import ImageError
from celaje.image.tree import Tree

_ELF_MAGIC = b"\x7fELF"


def with_libraries(packages: Tree, paths: Iterable[str], directories: Iterable[str]) -> Tree:
    """The files and links at `paths` of `packages`, and all libraries that they need, found in `directories`.

    ImageError where a file or a library is not there, or is no ELF file that can be read.
    """
    places = list(directories)
    chosen = Tree()
    waiting = list(paths)
    while waiting:
        path = packages.resolve(waiting.pop())
        if path in chosen:
            continue
        if path not in packages:
            raise ImageError(f"the packages have no file {path!r}")
        entry = packages[path]
        chosen.add(path, entry)
        if entry.is_symlink:
            target = normpath(join("/", dirname(path), entry.data.decode())).lstrip("/")
            waiting.append(target)
        elif entry.is_regular and entry.data.startswith(_ELF_MAGIC):
            interpreter, needed = _needs(path, entry.data)
            waiting += [interpreter] if interpreter else []
            waiting += [_found(packages, name, path, places) for name in needed]
    return chosen


def _found(packages: Tree, name: str, by: str, places: Iterable[str]) -> str:
    for place in places:
        if f"{place}/{name}" in packages:
            return f"{place}/{name}"
    raise ImageError(f"{by} needs the library {name}, which none of the packages has")


def _needs(path: str, content: bytes) -> tuple[str, list[str]]:
    interpreter, needed = "", []
    try:
        for segment in ELFFile(io.BytesIO(content)).iter_segments():
            if isinstance(segment, InterpSegment):
                interpreter = str(segment.get_interp_name()).lstrip("/")
            elif isinstance(segment, DynamicSegment):
                # The attribute is called as the kind of tag is, so no type checker knows it.
                needed = [str(getattr(tag, "needed")) for tag in segment.iter_tags("DT_NEEDED")]  # noqa: B009
    except (ELFError, UnicodeDecodeError) as error:
        raise ImageError(f"{path} is no ELF file that can be read: {error}") from error
    return interpreter, needed
