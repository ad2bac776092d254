# SPDX-License-Identifier: Apache-2.0
"""Owns how pieces of persistent memory reach their target: on this host, or over ssh.

Over ssh, one ssh for each batch runs daxio commands on the destination one after the
other. They all read from the ssh's one standard input, a FIFO into which root on this
host feeds the pieces in the same order. ssh runs as nova-compute's own user, with the
keys that a cold migration needs anyway.
"""

import contextlib
import fcntl
import os
import pathlib
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence

from nova_ext.privsep import pmem as privileged
from nova_ext.virt import pmem as contract
from nova_ext.virt.libvirt.pmem import copy

#: In the environment of each ssh of a copy: whose copy it is.
MARKER = "NOVA_EXT_COPY_PMEM"

_PROBE = 4096  # bytes; zeroed before they are overwritten
_ROOM = 1 << 20  # bytes that wait in the FIFO, so that ssh and daxio run side by side
_LAST_WORDS = 5  # s; what an ssh gets to say why it ends
_UNDERWAY = 8 << 20  # bytes; more than ssh, sshd and the pipes hold together


def scratch(mark: str) -> str:
    """How the names of a copy's temporary directories begin."""
    return f"nova-ext-pmem-{mark}-"


class Local:
    """A target on this host.

    :param timeout: seconds in which a piece has to be there
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._stopped = threading.Event()

    def probe(self, devices: Sequence[contract.Device]) -> None:
        """See :meth:`nova_ext.virt.libvirt.pmem.copy.Target.probe`."""
        try:
            for device in devices:
                privileged.zero(device.path, 0, _PROBE, self.timeout)
        except (privileged.DeviceError, privileged.DaxioError) as exc:
            raise contract.CopyError(str(exc)) from exc

    def write(
        self,
        source: contract.Device,
        target: contract.Device,
        pieces: Sequence[copy.Piece],
    ) -> Iterator[int]:
        """See :meth:`nova_ext.virt.libvirt.pmem.copy.Target.write`."""
        timeout = self.timeout
        for piece in pieces:
            if self._stopped.is_set():
                return
            at, length = piece.target, piece.length
            if piece.source is None:
                privileged.zero(target.path, at, length, timeout)
            else:
                privileged.copy(
                    source.path, piece.source, target.path, at, length, timeout
                )
            yield length

    def stop(self) -> None:
        """See :meth:`nova_ext.virt.libvirt.pmem.copy.Target.stop`."""
        self._stopped.set()


class Remote:
    """A target on another host.

    :param ssh: ``ssh``, its options and the host, as words
    :param prefix: words before each ``daxio`` there, such as ``sudo``
    :param timeout: seconds in which a piece has to be there
    :param mark: whose copy it is, for :data:`MARKER`
    """

    def __init__(
        self, ssh: Sequence[str], prefix: Sequence[str], timeout: float, mark: str
    ) -> None:
        self._ssh = list(ssh)
        self._daxio = [*prefix, "daxio"]
        self.timeout = timeout
        self._environment = {**os.environ, MARKER: mark}
        self._scratch = scratch(mark)
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._stopped = False

    def probe(self, devices: Sequence[contract.Device]) -> None:
        """See :meth:`nova_ext.virt.libvirt.pmem.copy.Target.probe`."""
        for device in devices:
            zeros = [copy.Piece(None, 0, _PROBE)]
            for _length in self.write(device, device, zeros):
                pass

    def write(
        self,
        source: contract.Device,
        target: contract.Device,
        pieces: Sequence[copy.Piece],
    ) -> Iterator[int]:
        """See :meth:`nova_ext.virt.libvirt.pmem.copy.Target.write`."""
        command = " && ".join(self._command(target, piece) for piece in pieces)
        with self._link(command) as link:
            # While the destination makes zeros, it takes no data; that they are done is
            # seen when more of what follows got through than fits on the way.
            patience = self.timeout
            for piece in pieces:
                if piece.source is not None:
                    link.feed(source.path, piece.source, piece.length, patience)
                    if piece.length > _UNDERWAY:
                        patience = 0
                patience += self.timeout
                yield piece.length
            link.finish([piece.length for piece in pieces], patience)

    def stop(self) -> None:
        """See :meth:`nova_ext.virt.libvirt.pmem.copy.Target.stop`."""
        with self._lock:
            self._stopped = True
            for link in self._links:
                link.process.kill()

    def _command(self, target: contract.Device, piece: copy.Piece) -> str:
        zero = ["-z"] if piece.source is None else []
        words = [*self._daxio, *zero, "-o", target.path]
        return shlex.join([*words, "-s", str(piece.target), "-l", str(piece.length)])

    @contextlib.contextmanager
    def _link(self, command: str) -> Iterator["_Link"]:
        with tempfile.TemporaryDirectory(prefix=self._scratch) as directory:
            with self._lock:
                if self._stopped:
                    raise contract.CopyError("the copy was stopped")
                link = _Link([*self._ssh, command], self._environment, directory)
                self._links.add(link)
            try:
                yield link
            finally:
                link.close()
                with self._lock:
                    self._links.discard(link)


class _Link:
    """One ssh with its FIFO."""

    def __init__(
        self, argv: list[str], environment: dict[str, str], directory: str
    ) -> None:
        self._fifo = os.path.join(directory, "data")
        self._errors = pathlib.Path(directory, "errors")
        self._writer = -1
        os.mkfifo(self._fifo, 0o600)
        reader = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            # Between two pieces, this end alone keeps the FIFO from ending.
            self._writer = os.open(self._fifo, os.O_WRONLY)
            with contextlib.suppress(OSError):  # a busy user may not have as much
                fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _ROOM)
            os.set_blocking(reader, True)
            with self._errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    argv,
                    stdin=reader,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=environment,
                )
        except OSError as exc:
            self._hang_up()
            raise contract.CopyError(f"ssh cannot be run: {exc}") from exc
        finally:
            os.close(reader)

    def feed(self, source: str, offset: int, length: int, timeout: float) -> None:
        """Send a piece of a device."""
        try:
            privileged.feed(source, offset, length, self._fifo, timeout)
        except privileged.DaxioError as exc:
            raise contract.CopyError(self._reason(exc)) from exc

    def finish(self, lengths: list[int], timeout: float) -> None:
        """End the data and make sure that all of it arrived."""
        self._hang_up()
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise contract.CopyError(
                f"the destination did not end within {timeout} s"
            ) from exc
        said = self._said()
        if status != 0:
            raise contract.CopyError(f"ssh ended with {status}: {said[-300:]}")
        if privileged.copied(said) != lengths:
            raise contract.CopyError(
                f"the destination was sent pieces of {lengths} bytes and said: "
                f"{said[-300:]}"
            )

    def close(self) -> None:
        """End the ssh if it still runs."""
        self._hang_up()
        self.process.kill()
        self.process.wait()

    def _reason(self, failure: Exception) -> str:
        """Why a piece did not get through: rather the words of ssh than of daxio."""
        try:
            status = self.process.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            return str(failure)
        return f"ssh ended with {status}: {self._said()[-300:]} ({failure})"

    def _said(self) -> str:
        return self._errors.read_text(errors="replace").strip()

    def _hang_up(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
