"""A PostgreSQL server of our own: in a temporary folder, on a free loopback port, without fsync, ended with the tests."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PASSWORD = "s3cret-of-the-store"
_USER = "daemun"
_START_S = 30


@dataclass
class PostgresServer:
    """Databases of one server, which may be stopped, started again, or made to hang."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_database(self) -> str:
        """Empty. Returns its address."""
        name = f"store_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str) -> str:
        """What psql prints, without decoration."""
        command = [_program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p", str(self.port)]
        command += ["-U", _USER, "-d", database, "-c", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def dump(self, url: str) -> str:
        """All that is in a database."""
        command = [_program("pg_dump"), "-h", str(self.folder), "-p", str(self.port), "-U", _USER, url.rpartition("/")[2]]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        command = [_program("postgres"), "-D", str(self.folder / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(_as_owner(command), stdout=log, stderr=log, cwd="/")
        until = time.monotonic() + _START_S
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, "PostgreSQL does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as when the machine fails: nobody is told."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(_START_S)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Connections stay, and nothing is answered."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        stopped = [server, *server.children(recursive=True)]
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def _answers(self) -> bool:
        asked = [_program("pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        return subprocess.run(asked).returncode == 0


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="daemun-pg-") as made, closing(socket.create_server(("127.0.0.1", 0))) as taken:
        folder, port = Path(made), int(taken.getsockname()[1])
        _initialise(folder)
        taken.close()
        server = PostgresServer(folder, port)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _initialise(folder: Path) -> None:
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if owner := _owner():
        for path in (folder, secret):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    command = [_program("initdb"), "-D", str(folder / "data"), "-U", _USER, "--pwfile", str(secret), "--no-sync"]
    command += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    subprocess.run(_as_owner(command), check=True, capture_output=True, cwd="/")


def _owner() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root; Debian's package makes a user for it."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _as_owner(command: list[str]) -> list[str]:
    owner = _owner()
    return (
        command
        if owner is None
        else ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", *command]
    )


def _program(name: str) -> str:
    """Debian keeps all but the clients out of PATH."""
    found = shutil.which(name, path=":".join([*map(str, Path("/usr/lib/postgresql").glob("*/bin")), os.environ["PATH"]]))
    assert found, f"{name} is missing: scripts/debian-packages dev-cpu installs PostgreSQL"
    return found
