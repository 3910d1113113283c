"""Machines' processes: how they start, what they answer, how they are found again, and how they end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from celaje import bounded_log
from celaje.errors import CelajeError, HostError, InputError, NotFound, UsageError
from celaje.host import control, inventory, messages, record, starting, template
from celaje.host.console_ring import ConsoleRing
from celaje.host.control import Control
from celaje.host.control_server import MOST_CONNECTIONS
from celaje.host.machine_options import DiskOption
from celaje.host.record import MachineDirectory, RestoredFrom
from celaje.host.vmm import private_bytes
from tests.machine_processes import Machines, alive, end, wait_until
from tests.system.test_vm_run import FAIL_7, PASS, RESET


@contextmanager
def console(
    directory: MachineDirectory, tail: int = 0, read: bool = True, write: bool = True
) -> Iterator[Control]:
    with Control(directory) as found:
        found.ask(messages.OpenConsole(tail=tail, read=read, write=write), messages.Done)
        yield found


def hear(found: Control, length: int) -> bytes:
    """The next `length` bytes of a console, none of which may be missed."""
    said = b""
    while len(said) < length:
        answer = found.receive()
        assert isinstance(answer, messages.ConsoleOutput), answer
        assert not answer.missed
        said += answer.data
    return said


def ended(directory: MachineDirectory) -> inventory.Sighting:
    """How the machine ended, once it has."""
    assert control.wait_until_off(directory, 60)
    return inventory.look(directory)


def test_a_machine_is_up_when_its_start_returns_and_says_what_it_does(machines: Machines) -> None:
    directory = machines.made("one", cpus=2)
    process = starting.start(directory)
    seen = inventory.look(directory)
    assert (seen.state, seen.process) == ("running", process)
    assert seen.description is not None
    assert (seen.description.name, seen.description.process) == ("one", process)
    assert (seen.description.cpus, seen.description.memory) == (2, 16 << 20)
    assert Path(f"/proc/{process}/comm").read_text() == "celaje-vmm\n"
    assert os.getsid(process) == process


def test_consoles_are_read_and_written_by_many_at_once(machines: Machines) -> None:
    directory = machines.started("one")
    with (
        console(directory) as first,
        console(directory, write=False) as second,
        console(directory, read=False) as third,
    ):
        first.send(messages.ConsoleInput(data=b"hello "))
        assert hear(first, 6) == b"hello "
        third.send(messages.ConsoleInput(data=b"world"))
        assert hear(first, 5) == b"world"
        assert hear(second, 11) == b"hello world"
        second.send(messages.ConsoleInput(data=b"no"))
        with pytest.raises(UsageError, match="opened for"):
            second.receive()
    with console(directory, tail=5) as late:
        assert hear(late, 5) == b"world"


def test_input_of_any_length_arrives_whole(machines: Machines) -> None:
    directory = machines.started("one")
    text = bytes(32 + index % 80 for index in range(20_000)).replace(b"q", b"Q")
    said = b""
    with console(directory) as found:
        pieces = [messages.ConsoleInput(data=text[at : at + 10_000]) for at in range(0, len(text), 10_000)]
        typist = threading.Thread(target=lambda: [found.send(piece) for piece in pieces])
        typist.start()
        said = hear(found, len(text))
        typist.join(60)
    assert said == text


def test_the_consoles_end_tells_how_the_machine_ended(machines: Machines) -> None:
    directory = machines.started("one")
    with console(directory) as found, Control(directory) as waiting:
        waiting.send(messages.WaitForEnd())
        found.send(messages.ConsoleInput(data=b"last wordsq"))
        assert hear(found, 11) == b"last wordsq"
        assert found.receive() == messages.Ended(kind="power-off")
        assert found.receive() is None
        assert waiting.receive() == messages.Ended(kind="power-off")
    seen = ended(directory)
    assert (seen.state, seen.detail, seen.process) == ("off", "power-off", None)
    with ConsoleRing(directory.ring) as ring:
        assert ring.tail(100) == b"last wordsq"
    assert not (directory.path / "control").exists()


@pytest.mark.parametrize(
    ("program", "detail"),
    [(PASS, "power-off"), (FAIL_7, "fail 7: the test finisher was given code 7"), (RESET, "reboot")],
    ids=["power-off", "failure", "reset"],
)
def test_how_a_machine_ended_is_kept(machines: Machines, program: bytes, detail: str) -> None:
    seen = ended(machines.started("one", program, no_reboot=True))
    assert (seen.state, seen.detail) == ("off", detail)


def test_a_machine_starts_again(machines: Machines) -> None:
    directory = machines.started("one")
    with console(directory) as found:
        found.send(messages.ConsoleInput(data=b"1q"))
        hear(found, 2)
    ended(directory)
    starting.start(directory)
    assert inventory.look(directory).state == "running"
    with console(directory, tail=100) as found:
        found.send(messages.ConsoleInput(data=b"2"))
        assert hear(found, 3) == b"1q2"


def test_pause_and_resume(machines: Machines) -> None:
    directory = machines.started("one")
    for _ in range(2):
        control.ask("one", messages.Pause(), messages.Done)
    assert inventory.look(directory).state == "paused"
    with console(directory) as found:
        found.send(messages.ConsoleInput(data=b"x"))
        with pytest.raises(HostError, match="did not answer"):
            found.receive(0.1)
        control.ask("one", messages.Resume(), messages.Done)
        assert hear(found, 1) == b"x"
    assert inventory.look(directory).state == "running"
    control.ask("one", messages.Resume(), messages.Done)


def test_reset_starts_the_guest_anew(machines: Machines) -> None:
    directory = machines.started("one")
    control.ask("one", messages.Reset(), messages.Done)
    wait_until(lambda: control.ask("one", messages.Describe(), messages.Description).starts == 2)
    with console(directory) as found:
        found.send(messages.ConsoleInput(data=b"x"))
        assert hear(found, 1) == b"x"


def test_kill_switches_off_and_is_no_death(machines: Machines) -> None:
    directory = machines.started("one")
    control.ask("one", messages.Pause(), messages.Done)
    control.kill(directory)
    seen = inventory.look(directory)
    assert (seen.state, seen.detail) == ("off", "left")


def test_a_guest_that_does_not_listen_to_its_power_button_is_told_apart(machines: Machines) -> None:
    machines.started("one")
    with pytest.raises(UsageError, match="does not listen to its power button.*celaje vm kill one"):
        control.ask("one", messages.PressPowerButton(), messages.Done)


def test_statistics_count(machines: Machines) -> None:
    directory = machines.started("one")
    with console(directory) as found:
        found.send(messages.ConsoleInput(data=b"abc"))
        hear(found, 3)
    counters = control.ask("one", messages.Measure(), messages.Statistics).counters
    assert counters["engine"]["instructions"] > 10
    assert counters["console"]["output_bytes"] == 3
    assert counters["process"]["private_bytes"] > 100_000


def test_errors_of_a_start_are_those_of_the_machine(machines: Machines, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no disk"):
        machines.started("one", disks=(DiskOption(str(tmp_path / "none")),))
    with pytest.raises(InputError, match="is empty"):
        machines.started("two", b"")
    with pytest.raises(NotFound, match="there is no machine 'none'"):
        starting.start(MachineDirectory.of("none"))
    assert [inventory.look(MachineDirectory.of(name)).process for name in record.names()] == [None, None]


def test_a_machine_that_runs_is_not_started_again(machines: Machines) -> None:
    directory = machines.started("one")
    with pytest.raises(HostError, match="runs already.*celaje vm stop one"):
        starting.start(directory)
    assert inventory.look(directory).state == "running"


def test_of_many_starts_at_once_one_succeeds(machines: Machines) -> None:
    directory = machines.made("one")
    outcomes: list[object] = []

    def try_it() -> None:
        try:
            outcomes.append(starting.start(directory))
        except CelajeError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [type(outcome) for outcome in outcomes].count(int) == 1
    assert directory.holder() in outcomes


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_without_a_verdict_is_reported_and_leaves_no_zombie(
    machines: Machines, number: signal.Signals
) -> None:
    directory = machines.started("one")
    process = directory.holder()
    assert process is not None
    os.kill(process, number)
    wait_until(lambda: not Path(f"/proc/{process}").exists())
    wait_until(directory.process_exit)
    seen = inventory.look(directory)
    assert (seen.state, seen.detail) == ("died", f"its process was ended by {number.name}")
    starting.start(directory)
    assert inventory.look(directory).state == "running"


def test_a_restored_machine_that_died_says_when_its_file_was_cut_short(machines: Machines, tmp_path: Path) -> None:
    directory = machines.started("one")
    snapshot = tmp_path / "snapshot"
    snapshot.write_bytes(bytes(5000))
    source = RestoredFrom(path=str(snapshot), size=5000)
    directory.write_record(msgspec.structs.replace(directory.record(), restored_from=source))
    end(directory.holder())
    assert "cut short" not in inventory.look(directory).detail
    os.truncate(snapshot, 100)
    assert "was cut short under it: 100 bytes are left of 5000" in inventory.look(directory).detail
    snapshot.unlink()
    assert "cannot be read any more" in inventory.look(directory).detail


def test_a_termination_signal_switches_the_machine_off_in_order(machines: Machines) -> None:
    directory = machines.started("one")
    process = directory.holder()
    assert process is not None
    os.kill(process, signal.SIGTERM)
    seen = ended(directory)
    assert (seen.state, seen.detail) == ("off", "left")


def test_machines_outlive_their_starter_and_the_template(machines: Machines) -> None:
    directory = machines.made("one")
    program = f"""
from pathlib import Path
from celaje.host import starting
from celaje.host.record import MachineDirectory
print(starting.start(MachineDirectory(Path({str(directory.path)!r}))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert inventory.look(directory).process == int(done.stdout)
    end(starting.template_process())
    assert starting.template_process() is None
    seen = inventory.look(directory)
    assert (seen.state, seen.process) == ("running", int(done.stdout))
    end(seen.process)
    assert inventory.look(directory).detail == "its process was killed or crashed"


def test_a_machines_process_holds_nothing_of_the_templates(machines: Machines) -> None:
    machines.started("one")
    directory = machines.started("two")
    process = directory.holder()

    def targets() -> list[str]:
        found = []
        for name in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed in between
                found.append(os.readlink(f"/proc/{process}/fd/{name}"))
        return found

    # The connection on which it was started is closed a moment after the answer; the control socket stays.
    wait_until(lambda: sum(target.startswith("socket:") for target in targets()) == 1)
    assert not [target for target in targets() if "template" in target]
    assert os.readlink(f"/proc/{process}/fd/2") == str(directory.log)


def test_bytes_that_are_no_message_are_refused_and_the_machine_goes_on(machines: Machines) -> None:
    directory = machines.started("one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        with directory.socket_path() as path:
            raw.connect(path)
        for data in (b"\0", b"{}", b'{"version": 9}', b'{"version":1,"message":"fly"}', b"\xff" * 150_000):
            raw.send(data)
            assert json.loads(raw.recv(1 << 17))["cause"] in ("malformed", "version")
        raw.send(messages.encoded(messages.Start(directory="/")))
        assert json.loads(raw.recv(1 << 17))["cause"] == "usage"
        raw.send(messages.encoded(messages.Describe()))
        assert json.loads(raw.recv(1 << 17))["message"] == "description"


def test_one_connection_too_many_is_told_why(machines: Machines) -> None:
    directory = machines.started("one")
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Control(directory)) for _ in range(MOST_CONNECTIONS)]
        for connection in held:
            connection.ask(messages.Describe(), messages.Description)
        for _ in range(10):
            with pytest.raises(UsageError, match=f"serves {MOST_CONNECTIONS} connections already"):
                control.ask("one", messages.Describe(), messages.Description)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_other_users_are_refused(machines: Machines) -> None:
    """Somebody else who got hold of the directory, which its mode keeps from them, is refused by the kernel's word."""
    directory = machines.started("one")
    program = """
import os, socket, sys
places = [os.open(path, os.O_PATH) for path in sys.argv[1:]]
os.setuid(65534)
for place in places:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        raw.connect(f"/proc/self/fd/{place}")
        print(raw.recv(1 << 17).decode())
"""
    sockets = [str(directory.path / "control"), str(template.socket_path())]
    for path in sockets:  # connecting asks for the right to write
        os.chmod(path, 0o777)
    done = subprocess.run([sys.executable, "-c", program, *sockets], capture_output=True, text=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["message"] for answer in answers] == ["refused", "refused"], done.stderr
    assert all("another user's" in answer["reason"] for answer in answers)
    assert inventory.look(directory).state == "running"


def test_the_template_refuses_what_it_cannot_do(machines: Machines) -> None:
    machines.started("one")
    for data in (b"nonsense", messages.encoded(messages.Kill())):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
            raw.connect(str(template.socket_path()))
            raw.send(data)
            assert json.loads(raw.recv(1 << 17))["message"] == "refused"
    assert starting.template_process() is not None


def test_a_template_that_has_got_a_second_thread_forks_no_machine(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = machines.made("one")
    forked: list[bool] = []
    monkeypatch.setattr(os, "fork", lambda: forked.append(True) or 1)
    enough = threading.Event()
    thread = threading.Thread(target=enough.wait)
    thread.start()
    listener, ours, theirs = socket.socket(), *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener, ours, theirs:
        holder = template.Template(listener, -1)
        ours.send(messages.encoded(messages.Start(directory=str(directory.path))))
        holder._answer(theirs)
        for descriptor in (holder._woken, holder._wakes):
            os.close(descriptor)
        said = json.loads(ours.recv(1 << 17))
    enough.set()
    thread.join()
    assert said["message"] == "refused"
    assert "threads and can fork with one only" in said["reason"]
    assert not forked


@contextmanager
def silent_clients(count: int) -> Iterator[list[socket.socket]]:
    """Who connects to the template and says nothing."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            client.connect(str(template.socket_path()))
            client.settimeout(60)
            clients.append(client)
        yield clients


def gone(client: socket.socket) -> bool:
    """Whether the other end has closed."""
    client.setblocking(False)
    try:
        return not client.recv(1)
    except BlockingIOError:
        return False


def sockets_of(process: int) -> int:
    """How many a process has open."""
    count = 0
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(entry).startswith("socket:")
    return count


def test_clients_that_say_nothing_keep_nobody_waiting(machines: Machines) -> None:
    end(starting.template_process())
    starting.start_template(request_seconds=3600)
    process = starting.template_process()
    with silent_clients(5) as silent:
        directory = machines.started("one")
        silent[0].send(messages.encoded(messages.Kill()))  # and are served when they speak
        assert json.loads(silent[0].recv(1 << 17))["message"] == "refused"
        silent[1].close()
        running = directory.holder()
        assert running is not None
        wait_until(lambda: sockets_of(running) == 1)  # the machine's own
        machines.started("two")
        assert not any(gone(client) for client in silent[2:])
    assert starting.template_process() == process
    assert len(list(Path(f"/proc/{process}/task").iterdir())) == 1


def test_of_too_many_silent_clients_the_first_goes_and_so_does_one_that_is_silent_for_long(
    machines: Machines,
) -> None:
    end(starting.template_process())
    starting.start_template(request_seconds=3600)
    with silent_clients(template.MOST_CLIENTS + 1) as silent:
        assert silent[0].recv(1) == b""
        assert not gone(silent[-1])
    end(starting.template_process())
    starting.start_template(request_seconds=0.1)
    with silent_clients(3) as silent:
        assert [client.recv(1) for client in silent] == [b""] * 3


def test_who_has_spoken_is_heard_however_late_the_template_comes_to_it(machines: Machines) -> None:
    end(starting.template_process())
    starting.start_template(request_seconds=0)
    process = starting.template_process()
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    try:
        with silent_clients(2) as (one, other):
            for client in (one, other):
                client.send(messages.encoded(messages.Kill()))
            os.kill(process, signal.SIGCONT)
            for client in (one, other):
                assert json.loads(client.recv(1 << 17))["message"] == "refused"
    finally:
        end(process)


def test_a_template_that_ends_serves_whoever_is_connected(machines: Machines) -> None:
    machines.started("one")
    process = starting.template_process()
    assert process is not None
    with silent_clients(1) as (client,):
        os.kill(process, signal.SIGTERM)
        wait_until(lambda: not template.socket_path().exists())
        client.send(messages.encoded(messages.Kill()))
        assert json.loads(client.recv(1 << 17))["message"] == "refused"
    wait_until(lambda: not alive(process))


def test_a_machines_log_is_bounded(machines: Machines) -> None:
    directory = machines.made("one")
    directory.log.write_bytes(b"old\n" * bounded_log.LIMIT)
    starting.start(directory)
    assert directory.log.stat().st_size < bounded_log.LIMIT
    older = directory.log.with_name("log.1")
    assert older.read_bytes().startswith(b"old\n")
    control.kill(directory)
    directory.log.write_bytes(b"new\n" * bounded_log.LIMIT)
    starting.start(directory)
    assert older.read_bytes().startswith(b"new\n")


def test_an_idle_machine_costs_little_memory_of_its_own(machines: Machines) -> None:
    first = machines.started("one")
    process = first.holder()
    assert process is not None
    assert private_bytes(str(process)) < 25_000_000


def test_two_templates_that_start_at_once_end_with_one(machines: Machines) -> None:
    end(starting.template_process())
    threads = [threading.Thread(target=starting.start_template) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_until(starting.template_process)
    process = starting.template_process()
    starting.start_template()
    assert starting.template_process() == process


def test_a_starter_whose_celaje_was_changed_since_finds_the_template_that_it_starts(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that runs for long knows what celaje was called when it began."""
    monkeypatch.setattr(template, "key", lambda: "0123456789abcdef")
    end(starting.template_process())
    assert inventory.look(machines.started("one")).state == "running"
    assert template.socket_path().name == "template-0123456789abcdef.sock"
    end(starting.template_process())


def test_a_template_that_nobody_asks_goes(machines: Machines) -> None:
    end(starting.template_process())
    starting.start_template(idle_seconds=0.3)
    wait_until(lambda: not template.socket_path().exists())
    with template.socket_path().with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it has that as long as it lives
    assert starting.template_process() is None
    directory = machines.started("one")
    assert inventory.look(directory).state == "running"
