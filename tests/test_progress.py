"""Progress bars: where they show, and that they are gone when something else is said."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from contextlib import suppress

import pytest

from emcatalog.drivers.progress import bytes_bar, clear_bars, items_bar
from tests.conftest import Replica, ServeAs, python
from tests.test_cli import COMMAND

_SHOWS = """
import io, sys
from contextlib import redirect_stderr
{first}
from emcatalog.drivers.progress import bytes_bar
with redirect_stderr(io.StringIO()) as shown:
    bytes_bar("a title", 10)(5)
print("a title" in shown.getvalue())
"""


@pytest.mark.parametrize(
    ("first", "shows"),
    [
        ("", False),
        ("import ipykernel.kernelapp", False),  # as navis does
        ("from ipykernel.kernelapp import IPKernelApp; IPKernelApp.instance()", True),  # in a notebook
    ],
)
def test_where_bars_show(first: str, shows: bool) -> None:
    assert python(_SHOWS.format(first=first)) == str(shows)


def on_a_terminal(*arguments: str) -> str:
    """What a command shows on a terminal of 80 columns."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen([*COMMAND, *arguments], stdin=end, stdout=end, stderr=end):
        os.close(end)
        shown = b""
        with suppress(OSError):  # the command has ended, and nobody holds the other end
            while part := os.read(terminal, 4096):
                shown += part
    os.close(terminal)
    return shown.decode()


def test_an_error_has_a_line_of_its_own(replica: Replica, serve_as: ServeAs) -> None:
    """Where a bar stands when the server fails."""
    server = serve_as("gs://flyem-male-cns", replica.folder)
    server.fail("*.feather", 503, skip=1)
    shown = on_a_terminal("fetch", "malecns_data.body_stats")
    assert "body_stats, downloading:   0%" in shown
    assert re.search(r"\r +\r(\x1b\[[\d;]*m)*error: ", shown)


@pytest.mark.parametrize("bar", [bytes_bar, lambda title, count: items_bar(title, count, "part")])
def test_clearing_them_again_and_again(bar: object) -> None:
    advance = bar("a title", 10)  # type: ignore[operator]
    advance(3)
    for _ in range(2):
        clear_bars()
    advance(7)  # of work that goes on in another thread
