# SPDX-License-Identifier: Apache-2.0
"""Owns a stock API worker, as it stands beside ours during an upgrade."""

import json
import pathlib
import sys
from typing import Any

import webob
from nova.api import wsgi
from nova.tests.functional.api_samples_test_base import PROJECT_ID

from tests.functional import base


class StockApi(base.FunctionalTest):
    """A cloud that has an API worker without the extension, too.

    :ivar stock: that worker
    """

    def setUp(self) -> None:
        super().setUp()
        paste = str(pathlib.Path(sys.prefix, "etc/nova/api-paste.ini"))
        self.stock = wsgi.Loader(paste).load_app("osapi_compute")

    def ask(
        self,
        application: Any,
        version: str | None,
        path: str,
        body: Any = None,
        method: str = "",
        user: str = "fake",
        root: str = "v2.1",
    ) -> webob.Response:
        request = webob.Request.blank(f"/{root}/{path}")
        request.method = method or ("GET" if body is None else "POST")
        request.headers["X-Auth-User"] = user
        request.headers["X-Auth-Project-Id"] = PROJECT_ID
        request.headers["X-Roles"] = "reader,member" + ",admin" * (user == "admin")
        if version:
            request.headers["OpenStack-API-Version"] = f"compute {version}"
        if body is not None:
            request.content_type = "application/json"
            request.body = json.dumps(body).encode()
        return request.get_response(application)
