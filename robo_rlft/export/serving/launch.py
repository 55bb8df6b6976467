"""The verb `serve`: a bundle behind a port, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial

from robo_rlft.export.serving.backend import Backend
from robo_rlft.export.serving.options import ServeOptions
from robo_rlft.export.serving.server import PolicyServer

UNFINISHED = 1
"""Exit status when an inference did not end within the grace."""


def serve(backend: Backend, options: ServeOptions, name: str) -> None:
    """Serve a policy until a signal, then print what was counted.

    SIGTERM and SIGINT finish the current requests; a second one ends the process at once.

    Args:
        backend: the policy.
        options: how it is served.
        name: what to call the policy in what is printed.

    Raises:
        ConfigError: the address cannot be listened on, or a key mapping leads nowhere.
    """
    server = PolicyServer(backend, options)
    finished = asyncio.run(_until_signal(server, name))
    print(f"served {name}:\n{server.statistics.table()}", flush=True)
    if not finished:
        print(f"error: an inference did not end within {options.grace_s:g} s", file=sys.stderr, flush=True)
        # The thread that computes cannot be ended, and would keep the interpreter alive.
        os._exit(UNFINISHED)


async def _until_signal(server: PolicyServer, name: str) -> bool:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, partial(_on_signal, server, number, []))
    return await server.run(partial(_announce, server, name))


def _on_signal(server: PolicyServer, number: int, before: list[int]) -> None:
    if before:
        os._exit(128 + number)
    before.append(number)
    server.stop()


def _announce(server: PolicyServer, name: str) -> None:
    manifest, (host, port) = server.backend.manifest, server.address
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {name} ({manifest.robot.env_id}) at {server.options.url_scheme}://{shown}:{port}")
    print(f"  golden check passed, error {server.backend.golden_error:.1e}")
    print(f"  clients send {', '.join(_described(server))}", flush=True)
    for warning in server.options.warnings():
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def _described(server: PolicyServer) -> list[str]:
    described = server.contract.describe()
    return [f"{key} {d['dtype']} {d['shape']}{' (optional)' if d['optional'] else ''}" for key, d in described.items()]
