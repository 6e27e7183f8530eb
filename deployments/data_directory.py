"""A server's places on disk: its data directory, the lock on it, its logs, and the short path for Ray's sockets."""

import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from trygon.errors import ErrorCode, InferenceError

KEPT_SESSIONS = 3
RUNTIME_ROOT = Path("/tmp")  # noqa: S108 - a Unix socket's path holds 107 bytes, of which Ray and HAProxy need 80


class DataDirectory:
    """The data directory of one server, locked while the object is entered.

    `runtime_dir` holds sockets and Ray's session; its short name is derived from the data directory, it belongs to
    this user alone, and it is gone when no server runs.
    """

    def __init__(self, path: Path, runtime_root: Path = RUNTIME_ROOT) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        digest = hashlib.sha256(f"{os.getuid()}:{self.path.resolve()}".encode()).hexdigest()
        self.runtime_dir = runtime_root / f"trygon-{digest[:10]}"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Create and lock the data directory.

        Raises: REQUEST_CONFLICT when another server has it, STORAGE_UNAVAILABLE when it cannot be written.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.logs.chmod(0o700)  # Ray makes its own log folders writable for everyone
            lock = os.open(self.path / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InferenceError(
                ErrorCode.STORAGE_UNAVAILABLE, f"cannot write the data directory {self.path}: {error}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise InferenceError(
                ErrorCode.REQUEST_CONFLICT,
                f"another server (pid {holder}) has the data directory {self.path}: stop it, or give --data-dir",
                data_dir=str(self.path),
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_runtime_dir(self) -> None:
        """Create the runtime directory, empty.

        Raises: SYSTEM_START_FAILED when another user has put something there.
        """
        self.clear_runtime_dir()
        try:
            self.runtime_dir.mkdir(mode=0o700)
        except OSError as error:
            raise InferenceError(ErrorCode.SYSTEM_START_FAILED, f"cannot create {self.runtime_dir}: {error}") from error

    def clear_runtime_dir(self) -> None:
        """Move the logs of Ray's sessions to the data directory, keep the newest, and remove the runtime directory."""
        if not self._owns_runtime_dir():
            return
        for session in sorted((self.runtime_dir / "ray").glob("session_2*")):
            if (session / "logs").is_dir() and not session.is_symlink():
                shutil.move(session / "logs", self.logs / session.name)
        for old in sorted(self.logs.glob("session_2*"))[:-KEPT_SESSIONS]:
            shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.runtime_dir, ignore_errors=True)

    def _owns_runtime_dir(self) -> bool:
        """Whether the runtime directory is there and is this user's own: anyone may write where it lies."""
        try:
            status = self.runtime_dir.lstat()
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            return True
        raise InferenceError(
            ErrorCode.SYSTEM_START_FAILED, f"{self.runtime_dir} is not this user's own directory: remove it"
        )
