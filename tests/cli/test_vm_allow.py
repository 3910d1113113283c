"""`celaje vm allow`, with a machine that runs and one that does not."""

from __future__ import annotations

import pytest

from celaje.cli.command import main
from celaje.host import control, starting
from celaje.host.network_options import NetworkOptions
from celaje.network import client
from tests.machine_processes import Machines, wait_until


def ports(name: str) -> set[int]:
    """The guest's ports that the host's applications reach."""
    (found,) = (one for one in client.interfaces("default") if one.interface == name)
    return {port.guest_port for port in found.ports}


def test_ports_are_opened_and_closed_while_the_machine_runs_and_stay_so(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = machines.started("web", network=NetworkOptions())
    assert main(["vm", "allow", "web", "tcp:8077", "udp:5000-5001"]) == 0
    assert capsys.readouterr().out == "web allows tcp:8077 udp:5000-5001\n"
    wait_until(lambda: {22, 8077, 5000, 5001} <= ports("web"))
    assert main(["vm", "allow", "web", "--remove", "tcp:8077"]) == 0
    wait_until(lambda: 8077 not in ports("web"))
    # Also for the network's next process, and for the machine's next start.
    client.stop("default")
    wait_until(lambda: [one.interface for one in client.interfaces("default")] == ["web"])
    wait_until(lambda: {22, 5000, 5001} == ports("web"))
    control.kill(directory)
    starting.start(directory)
    wait_until(lambda: {22, 5000, 5001} == ports("web"))


def test_a_machine_that_is_off_is_changed_for_its_next_start(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.made("web", network=NetworkOptions())
    assert main(["vm", "allow", "web"]) == 0
    assert capsys.readouterr().out == "web allows nothing beside ssh, ping and its forwards\n"
    assert main(["vm", "allow", "web", "tcp:80"]) == 0
    assert main(["vm", "allow", "web", "tcp:80", "tcp:443"]) == 0
    assert capsys.readouterr().out.endswith("web allows tcp:80 tcp:443\n")
    assert main(["vm", "allow", "web", "--remove", "tcp:81"]) == 2
    assert "tcp:81 of web was not allowed; allowed is: tcp:80 tcp:443" in capsys.readouterr().err


def test_what_cannot_be_is_refused(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    machines.made("alone")
    for words, said in (
        (["none", "tcp:80"], "there is no machine 'none'"),
        (["alone", "tcp:80"], "alone has no network"),
        (["alone", "icmp:80"], "begins with tcp: or udp:"),
        (["alone", "tcp:0"], "a port of allow=tcp:0 is 1 to 65535"),
    ):
        assert main(["vm", "allow", *words]) == 2
        assert said in capsys.readouterr().err
