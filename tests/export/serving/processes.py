"""Servers as processes of their own, for tests that kill them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path


def start_server(bundle: Path, *flags: str, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """`robo-rlft serve`, and the address that it printed."""
    command = [sys.executable, "-m", "robo_rlft.cli", "serve", str(bundle), "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in iter(process.stdout.readline, ""):
        if " at ws" in line:
            return process, line.rsplit(" at ", 1)[1].strip().replace("127.0.0.1", "localhost")
    raise AssertionError(process.communicate()[1])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]
