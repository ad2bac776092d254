# SPDX-License-Identifier: Apache-2.0
"""Owns the wire of a fake cloud: HTTP on 127.0.0.1, and a keystone with a catalogue.

What the services answer is up to who subclasses :class:`HttpCloud`.
"""

import dataclasses
import http.server
import json
import threading
import urllib.parse

import openstack


class NoAnswer(Exception):
    """Ends the connection instead of an answer."""


@dataclasses.dataclass
class Request:
    """What was asked; ``body`` is bytes."""

    method: str
    path: str
    query: dict
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body) if self.body else None

    def microversion(self, default):
        """Return the version behind the service's name in the header, as text."""
        found = self.headers.get("OpenStack-API-Version", default)
        return found.split()[-1] if found else found


class HttpCloud:
    """Serves requests, each connection in a thread of its own.

    :param catalog: the path of each service, by its type
    """

    def __init__(self, catalog):
        self._catalog = catalog
        cloud = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece does not wait for an ACK

            def __getattr__(self, name):
                if not name.startswith("do_"):
                    raise AttributeError(name)
                return lambda: cloud._serve(self)

            def log_message(self, *_args):
                """Say nothing."""

        self._httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_port}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def credentials(self):
        return {
            "auth_url": f"{self.url}/identity",
            "username": "demo",
            "password": "secret",
            "project_name": "demo",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }

    def close(self):
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()

    def answer(self, request):
        """Return code, body (None, bytes, or what becomes JSON) and headers.

        :raises NoAnswer: there is none
        """
        raise NotImplementedError

    def _serve(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        request = Request(
            handler.command,
            urllib.parse.unquote(url.path).rstrip("/"),
            dict(urllib.parse.parse_qsl(url.query)),
            handler.headers,
            _read(handler),
        )
        try:
            if request.path.startswith("/identity"):
                code, body, headers = self._identity(request.method)
            else:
                code, body, headers = self.answer(request)
        except NoAnswer:
            handler.close_connection = True
            return
        data, kind = body, "application/octet-stream"
        if not isinstance(body, bytes):
            data = b"" if body is None else json.dumps(body).encode()
            kind = "application/json"
        handler.send_response(code)
        for name, value in {"Content-Type": kind, **headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _identity(self, method):
        links = [{"rel": "self", "href": f"{self.url}/identity/v3/"}]
        found = {"id": "v3.14", "status": "stable", "links": links}
        if method == "GET":
            return 200, {"version": found}, {}
        catalog = [
            {
                "id": kind,
                "type": kind,
                "name": kind,
                "endpoints": [
                    {
                        "id": kind,
                        "interface": "public",
                        "region": "RegionOne",
                        "region_id": "RegionOne",
                        "url": f"{self.url}/{path}",
                    }
                ],
            }
            for kind, path in self._catalog.items()
        ]
        domain = {"id": "default", "name": "Default"}
        token = {
            "methods": ["password"],
            "issued_at": "2026-11-21T00:00:00.000000Z",
            "expires_at": "2126-11-21T00:00:00.000000Z",
            "user": {"id": "u", "name": "demo", "domain": domain},
            "project": {"id": "p", "name": "demo", "domain": domain},
            "roles": [{"id": "r", "name": "member"}],
            "catalog": catalog,
        }
        return 201, {"token": token}, {"X-Subject-Token": "secret"}


def connect(credentials, **chosen):
    """Return an SDK connection that reads no file and no environment."""
    return openstack.connect(
        auth=credentials,
        region_name="RegionOne",
        load_yaml_config=False,
        load_envvars=False,
        **chosen,
    )


def _read(handler):
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    chunks = []
    while size := int(handler.rfile.readline(), 16):
        chunks.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(chunks)
