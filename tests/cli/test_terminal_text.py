"""What a terminal is not to be sent."""

from __future__ import annotations

from celaje.cli.table import table
from celaje.cli.terminal_text import console_text, printable


def test_a_name_moves_no_cursor_and_turns_no_writing() -> None:
    assert printable("web – größer") == "web – größer"
    assert printable("a\x1b[2J\x9b\nb\u202e") == "a\\x1b[2J\\x9b\\nb\\u202e"
    assert "\x1b" not in table(("NAME",), [("\x1b]0;title\x07",)])


def test_a_console_keeps_lines_and_colours_only() -> None:
    assert console_text("[\x1b[0;32mOK\x1b[0m]\tgo\r\n") == "[\x1b[0;32mOK\x1b[0m]\tgo\r\n"
    said = console_text("\x1b]52;c;cm0=\x07 \x1b[6n \x1bP$q\x1b\\ \x1b[2K \u009b6n")
    assert "\x1b" not in said
    assert "\u009b" not in said
