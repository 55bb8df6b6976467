"""The settings of a policy server, checked before anything starts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robo_rlft.errors import ConfigError

LOCAL = ("127.0.0.1", "::1", "localhost")
"""Hosts that only this machine reaches."""


@dataclass(frozen=True)
class ServeOptions:
    """How a policy is served.

    Attributes:
        host: address to listen on; the default is reached from this machine only.
        port: TCP port; 0 lets the system choose. 8000 is the one that openpi's clients try first.
        token: what clients must show; empty lets everybody in.
        tls: certificate and key, or None for plain connections.
        renamed: a client's key to the policy's.
        ignored: keys of a client that mean nothing here.
        seed: of the noise where clients send none, the same for every connection; None draws another one each time.
        max_clients: most connections at once.
        max_message: longest message in bytes.
        max_rows: most rows of one inference.
        max_wait_s: longest wait of a request for others to be computed with, in seconds.
        ping_s: after so long a silence a client is asked whether it is there, and dropped when it does not answer for
            as long again.
        grace_s: longest time that the end waits for current requests, in seconds.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    tls: ssl.SSLContext | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    seed: int | None = None
    max_clients: int = 64
    max_message: int = 32 << 20
    max_rows: int = 64
    max_wait_s: float = 0.002
    ping_s: float = 20.0
    grace_s: float = 10.0

    @property
    def url_scheme(self) -> str:
        """`ws` or `wss`."""
        return "wss" if self.tls else "ws"

    def warnings(self) -> list[str]:
        """What the owner of this server should know, one sentence each."""
        if self.host in LOCAL:
            return []
        open_door = f"everybody who reaches {self.host}:{self.port} can use this policy: add --token-file FILE"
        readable = "the token and all observations travel readable by others: add --certificate FILE --key FILE"
        return ([] if self.token else [open_door]) + ([] if self.tls else [readable])


def from_flags(flags: Mapping[str, str]) -> ServeOptions:
    """The options of a command line, by the verb's flags.

    Raises:
        ConfigError: a value is no number or out of range, a file cannot be used, or one of two that belong together is
            missing.
    """
    counted = {name: _number(f"--{flag}", flags, low, high) for name, (flag, low, high) in _NUMBERS.items()}
    given: dict[str, Any] = {name: int(value) for name, value in counted.items() if value is not None}
    wait_ms = _number("--max-wait-ms", flags, 0, 10_000)
    if wait_ms is not None:
        given["max_wait_s"] = wait_ms / 1e3
    if "max_message" in given:
        given["max_message"] <<= 20
    if "--token-file" in flags:
        given["token"] = read_token(flags["--token-file"])
    if ("--certificate" in flags) != ("--key" in flags):
        raise ConfigError("--certificate and --key belong together: name the PEM files of both")
    if "--certificate" in flags:
        given["tls"] = server_tls(flags["--certificate"], flags["--key"])
    names = tuple(filter(None, flags.get("--ignore", "").split(",")))
    host = flags.get("--host", ServeOptions.host)
    return ServeOptions(host=host, renamed=parse_map(flags.get("--map", "")), ignored=names, **given)


_NUMBERS = {
    "port": ("port", 0, 65535),
    "seed": ("seed", 0, 2**63),
    "max_clients": ("max-clients", 1, 100_000),
    "max_message": ("max-message-mb", 1, 1024),
    "max_rows": ("max-batch", 1, 100_000),
    "grace_s": ("grace-s", 0, 3600),
}


def _number(flag: str, flags: Mapping[str, str], low: float, high: float) -> float | None:
    if flag not in flags:
        return None
    try:
        value = float(flags[flag]) if flag == "--max-wait-ms" else int(flags[flag])
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise ConfigError(f"{flag} must be a number from {low:g} to {high:g}, got '{flags[flag]}'")
    return value


def read_token(path: Path | str) -> str:
    """The token in a file, without the white space around it.

    Raises:
        ConfigError: the file cannot be read, holds no token, or others may read it.
    """
    file = Path(path)
    try:
        token, mode = file.read_text().strip(), file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {file} cannot be read ({_cause(error)})") from error
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(f"{file} must hold one line of printable ASCII, the token: openssl rand -hex 32 > {file}")
    if mode & 0o077:
        raise ConfigError(f"others may read the token file {file}: chmod 600 {file}")
    return token


def server_tls(certificate: Path | str, key: Path | str) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate (with its chain) and key, both PEM.

    Raises:
        ConfigError: one of them cannot be read, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in (certificate, key):
        if not Path(file).is_file():
            raise ConfigError(f"{file} does not exist: --certificate and --key name PEM files")
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{certificate} and {key} are no certificate with its key in PEM ({_cause(error)})"
        ) from error
    return context


def parse_map(text: str) -> dict[str, str]:
    """`observation/state=policy,observation/image=image/front` as a map from a client's keys to the policy's.

    Raises:
        ConfigError: a part has no `=`, or a key stands twice.
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, name = part.partition("=")
        if not (key and equals and name) or key in found:
            raise ConfigError(
                f"--map {text}: expected CLIENT_KEY=POLICY_KEY,... with every client key once, got '{part}'"
            )
        found[key] = name
    return found


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
