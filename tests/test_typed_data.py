"""Decoders are made one at a time, whoever needs them: msgspec does not bear it otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import celaje

THREADS = """
import sys, threading, types
sys.setswitchinterval(1e-6)
import msgspec
from celaje.typed_data import from_json, from_msgpack

def family():
    text = ["import msgspec", "class C0(msgspec.Struct):", "  a: int"]
    for number in range(1, 30):
        below = f"C{number - 1}"
        text += [f"class C{number}(msgspec.Struct):", f"  x: {below}", f"  y: list[{below}]", "  z: int = 0"]
    module = types.ModuleType("family")
    exec("\\n".join(text), module.__dict__)
    return [getattr(module, f"C{number}") for number in range(30)]

for round in range(20):
    classes, together = family(), threading.Barrier(6)
    def decode(number):
        together.wait()
        for one in classes if number % 2 else classes[::-1]:
            for read, data in ((from_json, b'{"x":1}'), (from_msgpack, b"\\x81\\xa1x\\x01")):
                try:
                    read(data, one)
                except msgspec.ValidationError:
                    pass
    threads = [threading.Thread(target=decode, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("alive")
"""


def test_threads_that_decode_classes_with_parts_in_common_for_the_first_time_do_not_crash() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_nobody_else_makes_decoders_or_gives_msgspec_a_type() -> None:
    package = Path(celaje.__file__).parent
    makes = re.compile(r"\bDecoder\(|\bDecoder\[\w+\]\(|decode\([^)]*\btype=|msgspec\.convert\(")
    found = [
        path.relative_to(package) for path in package.rglob("*.py") if makes.search(path.read_text(encoding="utf-8"))
    ]
    assert found == [Path("typed_data.py")]
