# SPDX-License-Identifier: Apache-2.0
"""A small cloud with real time: what a group of servers, its snapshots and images need.

It speaks HTTP to a real SDK connection. What happens is written down in ``log``, in its
order; what goes wrong is said beforehand, by an attribute of the thing concerned or by
:meth:`FakeCloud.fault` for a request.
"""

import dataclasses
import heapq
import itertools
import re
import threading
import time
import uuid

from tests.unit.client import (
    fake_compute,
    fake_images,
    fake_network,
    fake_volumes,
    http_cloud,
    refusal,
)


@dataclasses.dataclass
class Fault:
    """What goes wrong with requests whose text matches ``pattern``.

    :ivar times: how often; None for always
    :ivar skip: how many of them go well before
    :ivar refuse: code and message of the answer; nothing is done then
    :ivar hang: seconds until anything is done
    :ivar lost: it is done, and the connection ends without an answer; or the code and
        message of the answer that comes instead
    """

    pattern: str
    times: int | None = 1
    skip: int = 0
    refuse: tuple[int, str] | None = None
    hang: float = 0
    lost: bool | tuple[int, str] = False

    def strikes(self, text):
        if self.times == 0 or not re.search(self.pattern, text):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times:
            self.times -= 1
        return True


@dataclasses.dataclass(frozen=True)
class Call:
    """One request; ``body`` is decoded, ``microversion`` None without its header."""

    method: str
    path: str
    body: object
    microversion: str | None


class FakeCloud(http_cloud.HttpCloud):
    """One cloud; ``compute``, ``volumes``, ``images`` and ``network`` are its services.

    :ivar log: what happened, as tuples of a verb and the name of its object
    :ivar requests: what was asked, as text with names instead of IDs
    :ivar calls: the same as :class:`Call`
    :ivar request_ids: whether answers have the header with the ID of the request
    :ivar unknown: requests that this cloud has no idea of; a test's mistake or a bug
    """

    def __init__(self):
        self.lock = threading.RLock()
        self.log = []
        self.requests = []
        self.calls = []
        self.request_ids = True
        self.unknown = []
        self.page_size = 1000
        self._labels = {}
        self._faults = []
        self._counter = itertools.count(1)
        self._due = []
        self._later = []
        self._wake = threading.Condition(self.lock)
        self._closed = threading.Event()
        self.images = fake_images.Images(self)
        self.volumes = fake_volumes.Volumes(self)
        self.network = fake_network.Network(self)
        self.compute = fake_compute.Compute(self)
        self._services = {
            service.path: service
            for service in (self.images, self.volumes, self.network, self.compute)
        }
        super().__init__(
            {
                "identity": "identity",
                "compute": "compute/v2.1",
                "block-storage": "volume/v3",
                "image": "image",
                "network": "network",
            }
        )
        self._timer = threading.Thread(target=self._run_due)
        self._timer.start()

    def close(self):
        self._closed.set()
        with self.lock:
            self._wake.notify_all()
        self._timer.join()
        super().close()

    # For tests.

    def fault(self, pattern, **effect):
        """Let requests go wrong, by a regular expression for their text.

        The text is method, service, path and, for actions, verb, with names for IDs:
        ``POST compute /servers/db/action quiesce``; a creation ends with the name of
        what is copied: ``POST volume /snapshots db-vdb``.
        """
        made = Fault(pattern, **effect)
        self._faults.append(made)
        return made

    def events(self, *verbs):
        """Return what is in the log with one of these verbs."""
        with self.lock:
            return [entry for entry in self.log if entry[0] in verbs]

    def wait_for(self, *entry, timeout=10.0):
        """Wait until the log has ``entry``; a test's own guard, not a behaviour."""
        with self._wake:
            assert self._wake.wait_for(lambda: entry in self.log, timeout), self.log

    def actions(self):
        """Return (server's name, body, microversion) of each server action asked."""
        with self.lock:
            return [
                (self.label(call.path.split("/")[-2]), call.body, call.microversion)
                for call in self.calls
                if call.method == "POST" and call.path.endswith("/action")
            ]

    # For the services; the caller has the lock.

    def new_id(self, label):
        made = str(uuid.uuid4())
        self.name_id(made, label)
        return made

    def name_id(self, made, label):
        self._labels[made] = label

    def label(self, made):
        return self._labels.get(made, made)

    def count(self):
        return next(self._counter)

    def tell(self, *entry):
        self.log.append(entry)
        self._wake.notify_all()
        ready = [later for later in self._later if later[0] == entry]
        self._later = [later for later in self._later if later[0] != entry]
        for _entry, function, args in ready:
            self.after(0, function, *args)

    def after(self, delay, function, *args):
        """Run a function with the lock: in some seconds, or once something happened.

        :param delay: seconds, or the entry of the log that is waited for
        """
        if isinstance(delay, tuple) and delay not in self.log:
            self._later.append((delay, function, args))
            return
        if isinstance(delay, tuple) or delay <= 0:
            function(*args)
            return
        due = time.monotonic() + delay
        heapq.heappush(self._due, (due, self.count(), function, args))
        self._wake.notify_all()

    def page(self, key, items, query):
        """Return what of a list goes into one answer, and where the rest is."""
        if marker := query.get("marker"):
            ids = [item["id"] for item in items]
            items = items[ids.index(marker) + 1 :]
        size = min(self.page_size, int(query.get("limit") or self.page_size))
        return {key: items[:size]}, items[size - 1]["id"] if items[size:] else None

    def answer(self, request):
        _empty, service, *parts = request.path.split("/")
        faults = []
        with self.lock:
            text = self._text(request, service, parts)
            self.requests.append(text)
            self.calls.append(_call(request))
            faults = [fault for fault in self._faults if fault.strikes(text)]
        for fault in faults:
            self._closed.wait(fault.hang)
        request_id = f"req-{uuid.uuid4()}"
        headers = {"x-openstack-request-id": request_id} if self.request_ids else {}
        if refused := next((f.refuse for f in faults if f.refuse), None):
            return *_error(*refused), headers
        with self.lock:
            try:
                answer = self._services[service].answer(request, parts, request_id)
            except refusal.Refusal as exc:
                answer = _error(exc.code, str(exc))
            if answer is None:
                self.unknown.append(text)
                answer = _error(404, f"The fake cloud does not know {text}.")
        if lost := next((fault.lost for fault in faults if fault.lost), None):
            if lost is True:
                raise http_cloud.NoAnswer
            answer = _error(*lost)
        code, body, *more = answer
        return code, body, {**headers, **dict(*more)}

    def _text(self, request, service, parts):
        path = "/".join(self.label(part) for part in parts[1:])
        words = [request.method, service, f"/{path}"]
        body = _json(request)
        if isinstance(body, dict) and len(body) == 1:
            ((verb, value),) = body.items()
            if parts[-1] == "action":
                words.append(verb)
            elif request.method == "POST" and isinstance(value, dict):
                source = value.get("volume_id") or value.get("name")
                words.append(self.label(source or ""))
        return " ".join(words)

    def _run_due(self):
        with self._wake:
            while not self._closed.is_set():
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    _due, _number, function, args = heapq.heappop(self._due)
                    function(*args)
                    continue
                self._wake.wait(self._due[0][0] - now if self._due else None)


def _json(request):
    is_json = "json" in (request.headers.get("Content-Type") or "")
    return request.json if is_json else None


def _call(request):
    chosen = request.microversion(default="")
    return Call(request.method, request.path, _json(request), chosen or None)


def _error(code, message):
    return code, {"error": {"code": code, "message": message}}
