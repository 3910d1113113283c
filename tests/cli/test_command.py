"""The frame of the command: what it says about itself, and how errors reach a person."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from importlib import import_module

import pytest

import celaje
from celaje.cli import command
from celaje.errors import CelajeError, GuestError, NotFound


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "celaje", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command fail with `error`."""

    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(command, "dispatch", fail)


def test_celaje_alone_explains_itself_and_shows_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    shown = capsys.readouterr().out
    assert "celaje image build debian-mini\n" in shown
    assert "celaje vm run debian-mini\n" in shown
    assert "celaje up --detach\n" in shown
    assert command.main(["vm"]) == 0
    shown += capsys.readouterr().out
    for words in command.COMMANDS:
        assert " ".join(words) in shown


def test_every_command_has_a_file_that_answers_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words, (place, _) in command.COMMANDS.items():
        module, _, function = place.partition(":")
        assert function or module == "celaje.cli." + "_".join(words).replace("-", "_")
        with pytest.raises(SystemExit, match=r"^0$"):
            getattr(import_module(module), function or "run")(["--help"])
        assert f"usage: celaje {' '.join(words)}" in capsys.readouterr().out


def test_a_room_alone_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["image"]) == 0
    shown = capsys.readouterr().out
    assert "celaje image ls" in shown
    assert "vm" not in shown
    assert command.main(["vm", "image", "--help"]) == 0
    assert "celaje vm image ls" in capsys.readouterr().out


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["version"]) == command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"celaje {celaje.__version__}\n" * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vm", "rnu"], "there is no command `celaje vm rnu`; did you mean `celaje vm run`?"),
        (["frobnicate"], "there is no command `celaje frobnicate`; `celaje` alone lists them"),
        (["--frobnicate"], "there is no command `celaje --frobnicate`; `celaje` alone lists them"),
        (["version", "now"], "unrecognized arguments: now; `celaje version --help` shows how it is used"),
    ],
)
def test_a_wrong_word_is_one_line_with_the_next_command(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    assert capsys.readouterr().err == f"celaje: {said}\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (CelajeError("a line\n  and   more of it"), 2, "celaje: a line and more of it\n"),
        (NotFound("no image x"), 2, "celaje: no image x\n"),
        (GuestError("it fell over"), 3, "celaje: it fell over\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "celaje: /x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "celaje: interrupted\n"),
    ],
)
def test_an_error_is_one_line_and_its_own_exit_status(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(error, monkeypatch)
    assert command.main(["version"]) == status
    assert capsys.readouterr().err == said


def test_a_full_disk_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(OSError(errno.ENOSPC, "No space left on device", "/cache/x"), monkeypatch)
    assert command.main(["version"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("celaje: /cache/x: No space left on device; free some space")
    assert said.count("\n") == 1


def test_a_mistake_in_celaje_is_not_taken_for_a_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(TypeError("oops"), monkeypatch)
    assert command.main(["version"]) == 70
    assert capsys.readouterr().err == (
        "celaje: a mistake in celaje itself (TypeError: oops); CELAJE_DEBUG=1 shows where\n"
    )


@pytest.mark.parametrize("way", ["option", "setting"])
def test_debugging_shows_the_traceback_before_the_line(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(NotFound("no image x"), monkeypatch)
    if way == "setting":
        monkeypatch.setenv("CELAJE_DEBUG", "1")
    assert command.main(["--debug", "version"] if way == "option" else ["version"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("celaje: no image x\n")


def test_an_error_of_the_process_is_one_line_without_a_traceback() -> None:
    done = run("vm", "run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "celaje image build debian-mini" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    shell = f"{sys.executable} -m celaje | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_running_a_machine_imports_nothing_that_is_slow_to_import() -> None:
    """What a run does not need must not be paid for at its start: 0.4 s to the guest's first instruction."""
    rooms = "celaje.cli.vm_run, celaje.host.configuration, celaje.host.engines, celaje.machine.terminal"
    listed = subprocess.run(
        [sys.executable, "-c", f"import sys, {rooms}; print(sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(ast.literal_eval(listed.stdout))
    slow = {"rich", "cyclopts", "msgspec", "numpy", "llvmlite", "asyncio", "http.client", "urllib.request", "ssl"}
    slow |= {"elftools", "pysequoia", "tarfile", "email"}
    assert not loaded & slow
