# SPDX-License-Identifier: Apache-2.0
"""Runs in a PMEM host: what a nova-compute there does for a copy.

Each life of a nova-compute is a process of its own, forked from the interpreter that
stays, so that it can be killed. It runs as the user nova with a privileged daemon that
has the capabilities which nova gives it.
"""

import multiprocessing
import os
import pathlib
import pwd
import shutil
import socket
import threading
import types
from typing import Any

import nova.conf
import nova.privsep
from oslo_privsep import priv_context

from nova_ext import conf as options
from nova_ext.virt import pmem as shared
from nova_ext.virt.libvirt.pmem import copy as pmem
from nova_ext.virt.libvirt.pmem import fence as pmem_fence
from nova_ext.virt.libvirt.pmem import host as pmem_host

CONF = nova.conf.CONF

_fork = multiprocessing.get_context("fork")
#: The process and the pipe to it, while one runs.
_life: list[Any] = []


def lives() -> bool:
    """Whether a nova-compute runs."""
    return bool(_life)


def begin(**settings: Any) -> None:
    """Start a nova-compute; see :class:`_Compute` for its settings."""
    here, there = _fork.Pipe()
    process = _fork.Process(target=_live, args=(here, there, settings), daemon=True)
    process.start()
    there.close()
    _life[:] = process, here
    _answer(60)


def call(method: str, seconds: float, arguments: dict[str, Any]) -> Any:
    """Call a method of :class:`_Compute` in it."""
    _life[1].send((method, arguments))
    return _answer(seconds)


def end() -> None:
    """Kill it, and nothing that it has started."""
    process, pipe = _life
    _life.clear()
    process.kill()
    process.join()
    pipe.close()


def _answer(seconds: float) -> Any:
    if not _life[1].poll(seconds):
        raise TimeoutError(f"nova-compute did not answer within {seconds} s")
    kind, value = _life[1].recv()
    if kind is None:
        return value
    raise type(kind, (Exception,), {})(value)


def _live(other_end: Any, pipe: Any, settings: dict[str, Any]) -> None:
    other_end.close()
    compute = None
    call: tuple[str | None, dict[str, Any]] = None, settings
    while True:
        method, arguments = call
        try:
            if method is None:
                compute, value = _Compute(**arguments), None
            else:
                value = getattr(compute, method)(**arguments)
            pipe.send((None, value))
        except Exception as exc:
            pipe.send((type(exc).__name__, str(exc)))
        call = pipe.recv()


class _Driver:
    """What the copy uses of nova's libvirt driver."""

    def __init__(self, address: str, vpmems: list[dict[str, Any]]) -> None:
        self._address = address
        self._vpmems_by_name = {
            vpmem["name"]: types.SimpleNamespace(**vpmem) for vpmem in vpmems
        }

    def _get_vpmems(self, instance: Any, prefix: str | None = None) -> list[Any]:
        return [self._vpmems_by_name[name] for name in instance.names]

    def get_host_ip_addr(self) -> str:
        return self._address


class _Compute:
    """A nova-compute, as far as a copy goes.

    :param new: whether it knows nothing of an earlier life
    :param address: of this host
    :param vpmems: fields of the devices that nova knows
    :param overrides: options of ``[nova_ext]``
    :param constants: of the copy, such as the bytes of a piece
    :param threads: of the privileged daemon; None is nova's default
    """

    def __init__(
        self,
        new: bool,
        address: str,
        vpmems: list[dict[str, Any]],
        overrides: dict[str, Any],
        constants: dict[str, int],
        threads: int | None,
    ) -> None:
        user = pwd.getpwnam("nova")
        state = pathlib.Path(user.pw_dir, "state")
        if new:
            shutil.rmtree(state, ignore_errors=True)
        state.mkdir(exist_ok=True)
        os.chown(state, user.pw_uid, user.pw_gid)
        CONF([], project="nova", default_config_files=[])
        options.register_opts(CONF)
        CONF.set_override("host", socket.gethostname())
        CONF.set_override("state_path", str(state))
        for option, value in overrides.items():
            CONF.set_override(option, value, "nova_ext")
        if threads is not None:
            CONF.set_override("thread_pool_size", threads, "nova_sys_admin")
        for constant, number in constants.items():
            getattr(pmem, constant)
            setattr(pmem, constant, number)
        nova.privsep.sys_admin_pctxt.start(priv_context.Method.FORK)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        os.environ.update(HOME=user.pw_dir, USER="nova", LOGNAME="nova")
        os.chdir("/")
        self._host = pmem_host.LibvirtPmemHost(_Driver(address, vpmems))
        self._copy: pmem.Copy | None = None
        self._thread: threading.Thread | None = None
        self._outcome: Exception | None = None
        self._hold = 0
        self._held, self._go = threading.Event(), threading.Event()
        self.expect_copy, self.adopt = self._host.expect_copy, self._host.adopt
        self.sanitize, self.digest = self._host.sanitize, self._host.digest
        self.pending_sanitize = self._host.pending_sanitize
        self.kill_stale_processes = self._host.kill_stale_processes
        self.release = pmem_fence.release

    def prepare(
        self,
        names: list[str],
        targets: list[dict[str, Any]],
        uuid: str,
        address: str,
        hold: int = 0,
    ) -> int:
        """Make the copy that the other methods are about; returns its bytes.

        :param hold: so many bytes are on their way, and the copy waits for :meth:`go`
        """
        instance = types.SimpleNamespace(uuid=uuid, names=names)
        devices = [shared.Device(**target) for target in targets]
        self._hold = hold
        self._copy = self._host.copy(devices, instance, address, self._progress)
        return self._copy.total

    def _progress(self, done: int) -> None:
        if self._hold and done >= self._hold:
            self._held.set()
            self._go.wait()

    def probe(self) -> None:
        """Probe the destination."""
        assert self._copy
        self._copy.probe()

    def start(self) -> None:
        """Begin to copy."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._copy
        try:
            self._copy.run()
        except Exception as exc:
            self._outcome = exc

    def held(self, timeout: float) -> None:
        """Wait until the copy waits."""
        if not self._held.wait(timeout):
            raise TimeoutError(f"the copy is not half done: {self._outcome}")

    def go(self) -> None:
        """Let it go on."""
        self._go.set()

    def outcome(self, timeout: float) -> None:
        """Wait for the end; raises what the copy raised."""
        assert self._thread
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the copy runs on after {timeout} s")
        if self._outcome is not None:
            raise self._outcome

    def stop(self, reason: str) -> None:
        """End the copy."""
        assert self._copy
        self._copy.stop(reason)

    def ranges(self) -> list[tuple[str, int, int]]:
        """What :meth:`verify` will ask the destination for: name, offset, length."""
        assert self._copy
        return [
            (target.name, piece.target, piece.length)
            for _source, target, piece in self._copy._batches()
            if piece.source is not None
        ]

    def verify(self, digests: list[str]) -> None:
        """Verify with the digests of the :meth:`ranges`."""
        known = dict(zip(self.ranges(), digests, strict=True))
        assert self._copy
        self._copy.verify(lambda device, *where: known[(device.name, *where)])
