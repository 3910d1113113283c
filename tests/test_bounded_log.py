"""A log never takes more than two files' room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging, os, pathlib, sys
from celaje import bounded_log
path = pathlib.Path(sys.argv[1])
output = bounded_log.opened(path, 10_000)
os.dup2(output, 1), os.dup2(output, 2), os.close(output)
logging.getLogger().handlers[:] = [bounded_log.BoundedLog(path, 10_000)]
logging.getLogger().setLevel(logging.INFO)
for number in range(1000):
    if number == int(sys.argv[2]):
        path.unlink()
        os.chmod(path.parent, 0o500) if os.getuid() else path.parent.rename(f"{path.parent}-gone")
    logging.getLogger("a.room").info("line %d of %s", number, "many")
    if number == 500:
        print("said by something else", flush=True)
logging.getLogger("a.room").info("x" * 100_000)
logging.getLogger("a.room").info("the last line")
"""


def run(path: Path, vanishes: int = -1) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(path), str(vanishes)], check=True)


def test_a_full_log_is_put_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n" * 10_000)
    run(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.1"]
    assert path.read_text().endswith("a.room INFO the last line\n")
    sizes = [each.stat().st_size for each in tmp_path.iterdir()]
    assert max(sizes) < 2 * 10_000 + 100  # a line more than fits, which is cut to the limit
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_else_the_process_says_is_there_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    program = PROGRAM.replace("10_000", "10_000_000")
    subprocess.run([sys.executable, "-c", program, str(path), "-1"], check=True)
    text = path.read_text()
    assert "said by something else\n" in text
    assert text.count("\n") == 1003
    assert not (tmp_path / "log.1").exists()


def test_a_process_whose_logs_directory_is_gone_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    run(directory / "log", vanishes=10)
