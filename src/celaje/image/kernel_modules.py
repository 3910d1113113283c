"""Which of a kernel's modules a guest needs, and the tables that its modprobe reads (modules.dep(5)).

Debian makes these tables with depmod when a kernel is installed; here they come straight from what each module says of
itself: NUL-ended `key=value` text in its .modinfo section (Linux, include/linux/module.h).

Modules are given to the guest without the signatures that Debian's kernel team appends to them (Linux,
Documentation/admin-guide/module-signing.rst). They came here down the archive's own chain of hashes; a kernel that
Secure Boot did not start loads unsigned modules too (and notes it as taint E), but where there is a signature it checks
it. On an emulated processor that is most of a boot from disk: 1.7 of 3.1 billion instructions, measured with 6.12.
"""

from __future__ import annotations

import gzip
import lzma
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from celaje import zstandard
from celaje.errors import ImageError
from celaje.image.tree import Tree

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_MODINFO = re.compile(rb"(?:^|\0)(depends|softdep|alias|name)=([^\0]*)(?=\0)")
# Behind the module: signature; algorithm, hash, kind, two lengths, 3 bytes of padding, the signature's length; magic.
_SIGNATURE_MAGIC = b"~Module signature appended~\n"
_SIGNATURE_TRAILER = struct.Struct(">8xI")
_ALIASED_DIRECTORIES = ("kernel/crypto/", "kernel/arch/", "kernel/lib/")


@dataclass(frozen=True, slots=True)
class Module:
    """A module: its name, its path below the modules' directory (ending in .ko), its content as a kernel loads it."""

    name: str
    path: str
    content: bytes
    depends: tuple[str, ...]
    wants: tuple[str, ...]
    aliases: tuple[str, ...]


def module_name(path: str) -> str:
    """A module's name from its file's: `virtio-rng.ko.xz` is `virtio_rng`."""
    return PurePosixPath(path).name.split(".ko", 1)[0].replace("-", "_")


class KernelModules:
    """The modules of one kernel, as its package has them below `directory` (`usr/lib/modules/RELEASE`)."""

    def __init__(self, tree: Tree, directory: str) -> None:
        self._tree = tree
        self.directory = directory.rstrip("/")
        self._paths: dict[str, str] = {}
        prefix = self.directory + "/"
        for path, entry in tree:
            if path.startswith(prefix) and path.endswith(_SUFFIXES) and entry.is_regular:
                self._paths[module_name(path)] = path.removeprefix(prefix)
        self._builtin = {module_name(line) for line in self._text("modules.builtin").split()}
        self._builtin_aliases = {
            alias.decode("ascii", "replace")
            for alias in re.findall(rb"\.alias=([^\0]*)\0", self._bytes("modules.builtin.modinfo"))
        }
        self._aliases: dict[str, str] | None = None
        self._loaded: dict[str, Module] = {}

    def _bytes(self, name: str) -> bytes:
        path = f"{self.directory}/{name}"
        return self._tree.read(path) if path in self._tree else b""

    def _text(self, name: str) -> str:
        return self._bytes(name).decode("ascii", "replace")

    def __getitem__(self, name: str) -> Module:
        """The module `name`. ImageError where the kernel has none."""
        name = name.replace("-", "_")
        if name not in self._loaded:
            path = self._paths.get(name)
            if path is None:
                raise ImageError(f"the kernel in {self.directory} has no module {name!r}")
            content = without_signature(_uncompressed(path, self._tree.read(f"{self.directory}/{path}")))
            self._loaded[name] = _described(name, path.split(".ko", 1)[0] + ".ko", content)
        return self._loaded[name]

    def is_builtin(self, name: str) -> bool:
        """Whether `name` (a module's, or an alias) is part of the kernel itself."""
        return name.replace("-", "_") in self._builtin or name in self._builtin_aliases

    def _by_alias(self, alias: str) -> str | None:
        # Only the directories that soft dependencies point into: every module would be 4,000 decompressions.
        if self._aliases is None:
            self._aliases = {}
            for name, path in sorted(self._paths.items()):
                if path.startswith(_ALIASED_DIRECTORIES):
                    for offered in self[name].aliases:
                        self._aliases.setdefault(offered, name)
        return self._aliases.get(alias)

    def needs(self, module: Module) -> tuple[str, ...]:
        """The modules that have to be in the kernel before `module`: what it links to, what it wants first."""
        needed = [name for name in module.depends if not self.is_builtin(name)]
        for wanted in module.wants:
            if not self.is_builtin(wanted):
                found = wanted if wanted.replace("-", "_") in self._paths else self._by_alias(wanted)
                if found is not None:
                    needed.append(found.replace("-", "_"))
        return tuple(dict.fromkeys(needed))

    def closure(self, names: Iterable[str]) -> list[Module]:
        """The modules `names` and all that they need, each after what it needs. What is built in is left out.

        ImageError where the kernel has no such module, or two need each other.
        """
        ordered: dict[str, Module] = {}

        def visit(name: str, below: tuple[str, ...]) -> None:
            name = name.replace("-", "_")
            if name in ordered or self.is_builtin(name):
                return
            if name in below:
                raise ImageError(f"kernel modules need each other: {' -> '.join([*below, name])}")
            module = self[name]
            for needed in self.needs(module):
                visit(needed, (*below, name))
            ordered[name] = module

        for name in names:
            visit(name, ())
        return list(ordered.values())

    def tables(self, modules: Iterable[Module]) -> Iterator[tuple[str, str]]:
        """modules.dep and modules.alias for `modules`: file name and text."""
        chosen = list(modules)
        path_of = {module.name: module.path for module in chosen}
        dependencies = []
        for module in chosen:
            # Nearest first, as modules.dep wants it: modprobe loads the line from its end.
            needed = [other for other in self.closure([module.name]) if other.name != module.name]
            paths = [path_of[other.name] for other in reversed(needed)]
            dependencies.append(f"{module.path}:{''.join(' ' + path for path in paths)}\n")
        yield "modules.dep", "".join(dependencies)
        yield (
            "modules.alias",
            "".join(f"alias {alias} {module.name}\n" for module in chosen for alias in module.aliases),
        )

    def selected(self, names: Iterable[str]) -> Tree:
        """The modules `names`, what they need, and the tables. Not compressed: emulated processors take long for xz."""
        chosen = self.closure(names)
        tree = Tree()
        for module in chosen:
            tree.file(f"{self.directory}/{module.path}", module.content)
        for name, text in self.tables(chosen):
            tree.file(f"{self.directory}/{name}", text.encode())
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            tree.file(f"{self.directory}/{name}", self._bytes(name))
        return tree


def _uncompressed(path: str, content: bytes) -> bytes:
    try:
        if path.endswith(".xz"):
            return lzma.decompress(content)
        if path.endswith(".gz"):
            return gzip.decompress(content)
        if path.endswith(".zst"):
            return zstandard.decompress(content)
    except (lzma.LZMAError, OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise ImageError(f"the kernel module {path} cannot be decompressed: {error}") from error
    return content


def without_signature(module: bytes) -> bytes:
    """`module` as it was before a signature was appended, if one was. ImageError where its length lies."""
    if not module.endswith(_SIGNATURE_MAGIC):
        return module
    trailer = len(module) - len(_SIGNATURE_MAGIC) - _SIGNATURE_TRAILER.size
    length = _SIGNATURE_TRAILER.unpack_from(module, trailer)[0] if trailer >= 0 else 0
    if trailer < 0 or length > trailer:
        raise ImageError(f"a kernel module of {len(module)} bytes claims a signature of {length}")
    return module[: trailer - length]


def _described(name: str, path: str, content: bytes) -> Module:
    if not content.startswith(b"\x7fELF"):
        raise ImageError(f"the kernel module {path} is no ELF file")
    said: dict[str, list[str]] = {"depends": [], "softdep": [], "alias": [], "name": []}
    for key, value in _MODINFO.findall(content):
        said[key.decode()].append(value.decode("ascii", "replace"))
    depends = tuple(dict.fromkeys(one for line in said["depends"] for one in line.replace("-", "_").split(",") if one))
    wants = tuple(dict.fromkeys(one for line in said["softdep"] for one in _wanted_before(line)))
    return Module(name, path, content, depends, wants, tuple(dict.fromkeys(said["alias"])))


def _wanted_before(softdep: str) -> Iterator[str]:
    """The names after `pre:` in a soft dependency such as `pre: a b post: c`."""
    before = False
    for word in softdep.split():
        if word.endswith(":"):
            before = word == "pre:"
        elif before:
            yield word
