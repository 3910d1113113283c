"""Generated code on disk: what is trusted, what is made anew, what is refused, and what is never left behind."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celaje.engine.translate import code_cache
from celaje.engine.translate.code_cache import load_program, map_program, program_path, write_program
from celaje.errors import HostError

HANDLERS = ["undecoded", "run"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of this test's own; where in it the program would be."""
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))
    code_cache.program_path.cache_clear()
    yield program_path()
    code_cache.program_path.cache_clear()


@pytest.fixture(scope="module")
def compiled() -> bytes:
    """The program of this host, from the cache that all tests share."""
    load_program()
    return program_path().read_bytes()


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, compiled: bytes) -> list[Path]:
    """Compilations that were asked for; each gives what `compiled` is, without the seconds that it takes."""
    asked: list[Path] = []

    def compile(path: Path) -> None:
        asked.append(path)
        path.write_bytes(compiled)

    monkeypatch.setattr(code_cache, "_compile", compile)
    return asked


def left_behind(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one.suffix != ".lock")


# ---- what is there


def test_a_whole_program_is_used_as_it_is(compiled: bytes, compilations: list[Path], cache: Path) -> None:
    cache.write_bytes(compiled)
    program = load_program()
    assert compilations == []
    assert "access_register" in program.names
    assert len(program.names) == len(program.handlers)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "shorter than its header": lambda data: data[:40],
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte long": lambda data: data + b"\0",
    "another magic": lambda data: b"X" + data[1:],
    "a bit of the code": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    "a bit of the header": lambda data: data[:44] + bytes([data[44] ^ 16]) + data[45:],
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_program_is_never_executed_but_made_anew(
    damage: str, compiled: bytes, compilations: list[Path], cache: Path
) -> None:
    cache.write_bytes(DAMAGES[damage](compiled))
    load_program()
    assert compilations == [cache]
    assert cache.read_bytes() == compiled


def test_a_service_that_leaves_nothing_valid_is_an_error_that_names_the_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_cache, "_compile", lambda path: path.write_bytes(b"nonsense" * 1000))
    with pytest.raises(HostError, match=cache.name):
        load_program()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_program_of_somebody_elses_is_not_executed(compiled: bytes, compilations: list[Path], cache: Path) -> None:
    cache.write_bytes(compiled)
    os.chown(cache, 12345, 12345)
    assert map_program(cache) is None
    # the service would replace the file; what stands for it here writes into it, so it still is not ours
    with pytest.raises(HostError, match="no valid program"):
        load_program()
    assert compilations == [cache]


# ---- where


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_a_directory_that_others_may_enter_is_refused(mode: int, cache: Path) -> None:
    cache.parent.chmod(mode)
    code_cache.program_path.cache_clear()
    with pytest.raises(HostError, match="chmod 700"):
        program_path()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_elses_is_refused(cache: Path) -> None:
    os.chown(cache.parent, 12345, 12345)
    code_cache.program_path.cache_clear()
    with pytest.raises(HostError, match="belong to you"):
        program_path()


def test_the_directory_is_made_for_its_owner_alone(cache: Path) -> None:
    assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o700


def test_a_file_in_the_directorys_place_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "file"))
    code_cache.program_path.cache_clear()
    with pytest.raises(HostError, match="code cache"):
        program_path()
    code_cache.program_path.cache_clear()


def test_the_name_changes_with_the_processor(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "_host", lambda: "another processor")
    code_cache.program_path.cache_clear()
    assert program_path() != cache
    assert program_path().parent == cache.parent


def in_child(code: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, whose limits may change."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"  # bytes in a file
LOAD = """
from celaje.engine.translate.code_cache import load_program
from celaje.errors import HostError
try:
    load_program()
except HostError as error:
    print("HostError:", error)
"""


def test_a_directory_that_cannot_be_written_is_an_error_that_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a read-only file system: the lock itself cannot be made."""
    real = open

    def refusing(path: object, *arguments: object, **options: object) -> object:
        if str(path).endswith(".lock"):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refusing)
    with pytest.raises(HostError, match="Read-only file system"):
        load_program()


# ---- writing


def test_what_is_written_is_what_is_mapped(cache: Path) -> None:
    code = bytes(range(256)) * 20
    write_program(cache, code, 16, [0, 8, 4096], ["a", "b", "c"], b"tables" * 1000)
    program = map_program(cache)
    assert program is not None
    base = program.handlers[0]
    assert [handler - base for handler in program.handlers] == [0, 8, 4096]
    assert program.run == base + 16
    assert base % 4096 == 0
    assert ctypes.string_at(base, len(code)) == code
    assert ctypes.string_at(program.tables, 6000) == b"tables" * 1000
    assert program.names == ["a", "b", "c"]


def test_a_disk_that_is_full_leaves_nothing_half_written(cache: Path) -> None:
    code = f"""{LIMITED}
from pathlib import Path
from celaje.engine.translate.code_cache import write_program
from celaje.errors import HostError
try:
    write_program(Path({str(cache)!r}), bytes(100_000), 0, [0], ["a"], b"")
except HostError as error:
    print("HostError:", error)
"""
    result = in_child(code)
    assert result.stdout.startswith("HostError: cannot keep generated code"), result.stderr
    assert str(cache.parent) in result.stdout
    assert left_behind(cache) == []


def test_a_compile_service_without_space_is_one_clear_error_and_leaves_nothing(cache: Path) -> None:
    result = in_child(LIMITED + LOAD)
    assert result.stdout.startswith("HostError: "), result.stderr
    assert "cannot keep generated code" in result.stdout
    assert left_behind(cache) == []


def test_what_a_killed_service_left_is_cleared_away(compiled: bytes, compilations: list[Path], cache: Path) -> None:
    half = cache.with_name(f".{cache.name}.4711")
    half.write_bytes(compiled[:5000])
    load_program()
    assert compilations == [cache]
    assert left_behind(cache) == [cache.name]


def test_processes_that_start_at_once_compile_once(compiled: bytes, cache: Path, tmp_path: Path) -> None:
    """All want the same program; the others wait for the first and take what it made."""
    ready = tmp_path / "program"
    ready.write_bytes(compiled)
    counting = f"""
import os, time
from pathlib import Path
from celaje.engine.translate import code_cache
def compile(path):
    print("compiles", flush=True)
    time.sleep(1)
    os.replace({str(ready)!r}, path)
code_cache._compile = compile
print(len(code_cache.load_program().handlers))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", counting], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sum(output.count("compiles") for output, _ in outputs) == 1
    assert len({output.split()[-1] for output, _ in outputs}) == 1
    assert left_behind(cache) == [cache.name]


def test_a_program_file_is_found_by_its_hash(compiled: bytes) -> None:
    assert compiled[:8] == b"celajeC1"
    assert compiled[8:40] == hashlib.blake2b(compiled[40:], digest_size=32).digest()


def test_a_machines_process_never_loads_llvm(compiled: bytes) -> None:
    """The cache is warm here, so nothing is compiled."""
    asked = "import sys; print('llvmlite.binding' in sys.modules, 'celaje.isa.riscv.integer' in sys.modules)"
    result = in_child(LOAD + asked)
    assert result.stdout.split() == ["False", "False"], result.stdout + result.stderr
