"""Generated code on disk: written by the compile service, mapped by machines.

One file holds what runs a guest architecture on one kind of host:

    0   magic "celajeC1"
    8   BLAKE2b-256 of everything after it
    40  offsets and sizes (little-endian, 32 bits each): code, handlers, names, tables; and run's offset in the code
    …   each part at a multiple of 4096; code is position-independent, handlers are offsets into it

The file's name is made from all that decides its contents: the sources of the tables and of the translator, the
version of LLVM's binding, and the host's processor. The directory is its owner's alone (mode 0700), a file is written
aside and renamed, and it is verified before a single byte of it is executed.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import mmap
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from celaje import paths
from celaje.errors import HostError

MAGIC = b"celajeC1"
HASH_BYTES = 32
HEADER = struct.Struct("<8s32s9I")
ALIGNMENT = 4096
PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class LoadedProgram:
    """A program in this process's memory: addresses."""

    run: int
    handlers: list[int]
    names: list[str]
    tables: int


def write_program(
    path: Path, code: bytes, run: int, offsets: Sequence[int], names: Sequence[str], tables: bytes
) -> None:
    """Write a program file, aside and renamed."""
    parts = [code, struct.pack(f"<{len(offsets)}I", *offsets), "\n".join(names).encode(), tables]
    places: list[int] = []
    body = bytearray(ALIGNMENT - HEADER.size)
    for part in parts:
        body += bytes(-(HEADER.size + len(body)) % ALIGNMENT)
        places += [HEADER.size + len(body), len(part)]
        body += part
    fields = struct.pack("<9I", *places, run)
    digest = hashlib.blake2b(fields + bytes(body), digest_size=HASH_BYTES).digest()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(MAGIC + digest + fields + bytes(body))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HostError(
            f"cannot keep generated code in {path.parent}: {error.strerror}; free some space there"
        ) from error


def _host() -> str:
    """What the host's processor is, as far as generated code may depend on it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        told = ("flags", "Features", "model name", "model")
        kept = {line for line in text.splitlines() if line.split("\t")[0] in told}
        return "\n".join(sorted(kept))
    except OSError:
        return platform.processor()


@cache
def program_path() -> Path:
    """Where this host's program is, or will be."""
    digest = hashlib.blake2b(digest_size=16)
    for room in ("isa", "engine/translate"):
        for source in sorted((PACKAGE / room).rglob("*.py")):
            digest.update(source.read_bytes())
    spec = find_spec("llvmlite")
    version = Path(spec.origin).parent / "_version.py" if spec and spec.origin else None
    digest.update(version.read_bytes() if version and version.exists() else b"")
    digest.update(f"{platform.machine()} {_host()}".encode())
    directory = paths.cache() / "code"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise HostError(f"{directory} must belong to you alone; run: chmod 700 {directory}")
    except OSError as error:
        raise HostError(f"cannot use the code cache {directory}: {error.strerror}") from error
    return directory / f"riscv64-{digest.hexdigest()}.code"


def _valid(data: memoryview) -> bool:
    if len(data) < HEADER.size or bytes(data[:8]) != MAGIC:
        return False
    return hashlib.blake2b(data[8 + HASH_BYTES :], digest_size=HASH_BYTES).digest() == bytes(data[8 : 8 + HASH_BYTES])


def map_program(path: Path) -> LoadedProgram | None:
    """Map a program file for execution; None where it is not there or is not whole."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_size < HEADER.size:
            return None
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
        address = libc.mmap(None, status.st_size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, descriptor, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise HostError(
                f"the host does not let {path} be executed ({os.strerror(ctypes.get_errno())});"
                " set CELAJE_CACHE to a directory that is not mounted noexec"
            )
    finally:
        os.close(descriptor)
    data = memoryview((ctypes.c_ubyte * status.st_size).from_address(address)).cast("B")
    if not _valid(data):
        return None
    _, _, code, _, offsets, size, names, names_size, tables, _, run = HEADER.unpack_from(data)
    handlers = [address + code + offset for offset in struct.unpack_from(f"<{size // 4}I", data, offsets)]
    listed = bytes(data[names : names + names_size]).decode().split("\n")
    return LoadedProgram(address + code + run, handlers, listed, address + tables)


def load_program() -> LoadedProgram:
    """This host's program, compiled first where it is not in the cache (some seconds, once)."""
    path = program_path()
    program = map_program(path)
    if program is not None:
        return program
    try:
        opened = open(path.with_suffix(".lock"), "w")  # noqa: SIM115  # the error is of opening alone
    except OSError as error:
        raise HostError(
            f"cannot keep generated code in {path.parent}: {error.strerror}; make it yours, or set CELAJE_CACHE to"
            " another directory"
        ) from error
    with opened as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another start may be compiling the same
        program = map_program(path)
        if program is None:
            for stale in path.parent.glob(f".{path.name}.*"):  # of a service that was killed
                stale.unlink(missing_ok=True)
            _compile(path)
            program = map_program(path)
    if program is None:
        raise HostError(f"the compile service left no valid program at {path}; remove it and try again")
    return program


def _compile(path: Path) -> None:
    if sys.stderr.isatty():
        print("celaje: compiling the RISC-V engine for this host (once, some seconds) …", file=sys.stderr)
    command = [sys.executable, "-m", "celaje.engine.translate.compiler", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["no message"]
        raise HostError(f"the compile service failed: {last[0]}\nto see all of it, run: {' '.join(command)}")
