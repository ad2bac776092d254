# SPDX-License-Identifier: Apache-2.0
"""nova-conductor at the other end of a message bus, for objects in one process.

What goes over is what oslo.messaging would send: JSON of what nova's serializer makes,
exceptions included. The code that answers is nova's own.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import oslo_messaging as messaging
from nova import context as nova_context
from nova import rpc
from nova.conductor import manager
from nova.objects import base
from oslo_messaging._drivers import common
from oslo_serialization import jsonutils

from nova_ext import objects
from nova_ext.objects import pmem_copy, quiesce_window, state

objects.register_all()

#: What a stock nova-conductor does not know.
OURS = (
    *(pmem_copy.PmemCopy, pmem_copy.PmemCopyList),
    *(quiesce_window.QuiesceWindow, quiesce_window.QuiesceWindowList),
    state.ExtensionDatabase,
)


class Conductors:
    """nova-conductors of a cell that answer in turn, over a bus.

    :ivar calls: the methods that were called so far
    """

    def __init__(self, database: Any, extended: Iterable[bool]) -> None:
        self._database = database
        self._extended = iter(extended)
        self.calls: list[str] = []

    def object_class_action_versions(
        self,
        context: Any,
        objname: str,
        objmethod: str,
        object_versions: Any,
        args: Any,
        kwargs: Any,
    ) -> Any:
        return self._call(
            "object_class_action_versions",
            objname=objname,
            objmethod=objmethod,
            object_versions=object_versions,
            args=args,
            kwargs=kwargs,
        )

    def object_action(
        self, context: Any, objinst: Any, objmethod: str, args: Any, kwargs: Any
    ) -> Any:
        return self._call(
            "object_action",
            objinst=objinst,
            objmethod=objmethod,
            args=args,
            kwargs=kwargs,
        )

    def _call(self, method: str, **kwargs: Any) -> Any:
        self.calls.append(kwargs["objmethod"])
        serializer = base.NovaObjectSerializer()
        sent = _json(serializer.serialize_entity(None, kwargs))
        answer, failure = self._answer(method, sent)
        if failure is not None:
            raise common.deserialize_remote_exception(failure, rpc.get_allowed_exmods())
        return serializer.deserialize_entity(_local_context(), answer)

    def _answer(self, method: str, sent: Any) -> tuple[Any, str | None]:
        """What another process would do."""
        known = dict(base.NovaObjectRegistry._registry._obj_classes)
        client = base.NovaObject.indirection_api
        base.NovaObject.indirection_api = None
        registry = base.NovaObjectRegistry._registry
        if not next(self._extended):
            for cls in OURS:
                del registry._obj_classes[cls.obj_name()]
        serializer = base.NovaObjectSerializer()
        context = self._database.context()
        conductor = manager.ConductorManager.__new__(manager.ConductorManager)
        try:
            received = {
                name: serializer.deserialize_entity(context, value)
                for name, value in sent.items()
            }
            result = getattr(conductor, method)(context, **received)
            return _json(serializer.serialize_entity(context, result)), None
        except messaging.ExpectedException as exc:
            return None, common.serialize_remote_exception(exc.exc_info)
        except Exception:
            return None, common.serialize_remote_exception(sys.exc_info())
        finally:
            registry._obj_classes.clear()
            registry._obj_classes.update(known)
            base.NovaObject.indirection_api = client


def over(monkeypatch: Any, conductors: Conductors) -> Any:
    """A context of nova-compute, which has no database but these conductors."""
    monkeypatch.setattr(base.NovaObject, "indirection_api", conductors)
    return _local_context()


def forever(value: bool) -> Iterator[bool]:
    while True:
        yield value


def _local_context() -> Any:
    return nova_context.get_admin_context()


def _json(value: Any) -> Any:
    return jsonutils.loads(jsonutils.dumps(value))
