"""Files that are either whole or not there, and a folder that one process at a time may write to."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from cnnbp_cli.errors import UserError

_held: set[tuple[int, Path]] = set()
"""Locks of this process: the system's own lock would not keep a process from taking it twice."""


class WriteError(UserError):
    """A file that cannot be written; what was there before is intact."""


class InUseError(Exception):
    """Somebody else has the lock."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of `path` once it is on the disk; never in parts.

    Raises
    ------
    OSError
        When it cannot be written. What was there before is still there.
    """
    _require_file(path)
    temporary = path.with_name(f".{path.name}.cnnbp-{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # of a killed process with this number, or a link that waits for us
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a second Ctrl-C, too
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write `path`, or replace it at once; a device or a pipe is written to, a link followed.

    Raises
    ------
    WriteError
        When the disk is full or the folder cannot be written.
    """
    try:
        if path.is_char_device() or path.is_fifo():  # replacing would take it from everybody else
            path.write_bytes(content)
            return
        with replacing(path.resolve()) as file:
            file.write(content)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from None


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return  # Windows does it by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove what processes that were killed in `replacing` have left of the files of these names, or patterns."""
    for name in names:
        for path in folder.glob(f".{name}.cnnbp-*.tmp"):
            owner = re.fullmatch(r".*\.cnnbp-(\d+)\.tmp", path.name)
            if owner and not _is_alive(int(owner[1])):
                path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    """Tell whether another process has this number."""
    if sys.platform == "win32" or pid == os.getpid():
        return False  # Windows removes no file that is open
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def other_than_file(path: Path, *, follow: bool = True) -> str | None:
    """Return what is in the place of a regular file; None where there is one, or nothing."""
    try:
        mode = path.stat(follow_symlinks=follow).st_mode
    except (OSError, ValueError):
        return None
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "something else")


def require_files(paths: Iterable[Path], holder: str, error_class: type[UserError], *, follow: bool = True) -> None:
    """Refuse pipes, which may never end, devices, and links too if they are not to be followed.

    Raises
    ------
    error_class
        Says what is in the place of a file, in `holder`.
    """
    for path in paths:
        if what := other_than_file(path, follow=follow):
            raise error_class(f"{path}: is {what}; {holder} consists of regular files: remove it")


def _require_file(path: Path) -> None:
    """Complain, as the system would, about a place that is to be written and holds no file; a link gives way to one."""
    what = other_than_file(path, follow=False)
    if what not in (None, KINDS[stat.S_IFLNK]):
        raise OSError(errno.EINVAL, f"it is {what}")


def _open_here(path: str, flags: int) -> int:
    """Open a file for writing, whatever has been put in its place: through no link, and waiting for no reader."""
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{os.path.basename(path)} is not a regular file")
    return file


def appending(path: Path) -> FileIO:
    """Open a file to append to, at once: what is written is handed to the system. No link is followed.

    Raises
    ------
    OSError
        When it cannot be opened, or is not a regular file.
    """
    return open(path, "ab", buffering=0, opener=_open_here)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a block.

    The system drops the lock with the process, however it ends. Processes forked meanwhile do not have it. File
    systems without locks are taken as they are.

    Raises
    ------
    InUseError
        When another process has it, with that process's number, or another block of this one.
    OSError
        When the file cannot be made.
    """
    key = (os.getpid(), path.resolve())
    if key in _held:
        raise InUseError(str(os.getpid()))
    file = _take(path)
    _held.add(key)
    try:
        yield
    finally:
        _held.remove(key)
        if sys.platform != "win32":  # which removes no file that is open
            path.unlink(missing_ok=True)
        os.close(file)


def holder(path: Path) -> str | None:
    """Return the number of the process that holds a lock file; None where nobody does.

    The system is asked, not the number in the file: after a crash another process may have it.
    """
    if (os.getpid(), path.resolve()) in _held:  # trying would lose it
        return str(os.getpid())
    if other_than_file(path, follow=False):
        return None
    try:
        file = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError:  # somebody else's
        owner = path.read_text(encoding="ascii", errors="replace") if os.access(path, os.R_OK) else ""
        return owner if owner.isdecimal() and _is_alive(int(owner)) else None
    try:
        _lock(file)  # dropped again in a moment
        return None
    except (BlockingIOError, PermissionError):
        return os.read(file, 20).decode("ascii", "replace")
    finally:
        os.close(file)


@contextmanager
def reserved(folder: Path, what: str, error_class: type[UserError]) -> Iterator[None]:
    """Make a folder, and keep it from other processes for the length of a block.

    Raises
    ------
    error_class
        When it is in use, or when it, which holds `what`, cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            require_files([folder / ".lock"], what, error_class, follow=False)
            stack.enter_context(locked(folder / ".lock"))
        except InUseError as error:
            raise error_class(
                f"{folder}: is in use by process {error}; wait for its end, or choose another with --out"
            ) from None
        except FileExistsError:
            raise error_class(f"{folder}: {what} cannot be written: Not a directory") from None
        except OSError as error:
            raise error_class(f"{folder}: {what} cannot be written: {error.strerror or error}") from None
        yield


def _take(path: Path) -> int:
    """Return a descriptor of the file at `path` that holds its lock."""
    while True:
        file = _open_here(str(path), os.O_RDWR | os.O_CREAT)
        try:
            _lock(file)
            if sys.platform == "win32" or _is_at(path, file):
                if os.read(file, 20).strip(b"0123456789"):
                    raise OSError(errno.EINVAL, f"{path.name} is a file of something else")
                os.lseek(file, 0, os.SEEK_SET)
                os.truncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        except (BlockingIOError, PermissionError):
            owner = os.read(file, 20).decode("ascii", "replace")
            os.close(file)
            raise InUseError(owner) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its last owner has just removed it


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind the owner's number, which others may read
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by workers
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
