"""`celaje ssh`: a shell, or a command, on a machine."""

from __future__ import annotations

import argparse
import os
import sys

from celaje.cli.arguments import Parser

EPILOG = """\
The host's own ssh does it, with the key that the machine was started with (--ssh-key). Options of ssh come before the
name, as in: celaje ssh -L 8080:localhost:80 web"""
WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # ssh's options that have one


def run(words: list[str]) -> int:
    """Become ssh. NotFound where the machine does not run, HostError where the host has no ssh."""
    parser = Parser("ssh", "Logs in to a machine, or runs a command on it.", EPILOG)
    parser.add_argument("target", metavar="[USER@]NAME", help="a machine (`celaje vm ls`); without USER, admin")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="instead of a shell")
    options: list[str] = []
    while words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        count = 2 if len(words[0]) == 2 and words[0][1] in WITH_VALUE else 1
        options, words = options + words[:count], words[count:]
    chosen = parser.parse_args(words)

    from celaje.host.reach import ssh_words

    program, before = ssh_words(chosen.target)
    sys.stdout.flush()
    os.execv(program, [before[0], *options, *before[1:], *chosen.command])
