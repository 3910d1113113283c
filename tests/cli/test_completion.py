"""Completion: names that others give are words of the line, or no candidates."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from celaje.cli import completion

EVIL = ["$(touch {0})", "`touch {0}`", "a;touch {0}", "a\ntouch {0}", "--json", "'", "\x1b[2J", "a b", "~"]


def test_what_a_shell_could_take_for_more_than_a_word_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(completion._NAMES, "ssh", (lambda: [*EVIL, "web-1", "größe", "sub/dir.x"],))
    assert completion.candidates(["ssh", ""]) == ["größe", "sub/dir.x", "web-1"]
    assert [completion._named(name, "i-1") for name in (*EVIL, "web")] == ["i-1"] * len(EVIL) + ["web"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_runs_nothing_of_what_is_completed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "celaje").write_text(f"#!/bin/sh\nprintf '%s\\n' 'web-1' '$(touch {mark})' '`touch {mark}`'\n")
    (tmp_path / "celaje").chmod(0o755)
    script = f"""{completion.SCRIPTS["bash"]}
COMP_WORDS=(celaje ssh ''); COMP_CWORD=2; _celaje; printf '%s\\n' "${{COMPREPLY[@]}}" """
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = subprocess.run(["bash", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[0] == "web-1"
    assert not mark.exists()
