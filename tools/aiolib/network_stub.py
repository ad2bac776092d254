# SPDX-License-Identifier: Apache-2.0
"""The least network endpoint that servers without a network need: empty lists."""

from __future__ import annotations

import http.server
import json
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Two small writes to one answer would wait 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts in ([""], ["v2.0"]):
            href = f"http://{self.headers['Host']}/v2.0/"
            link = {"rel": "self", "href": href}
            version = {"id": "v2.0", "status": "CURRENT", "links": [link]}
            self._answer(200, {"versions": [version]})
        elif len(parts) == 2:
            self._answer(200, {parts[1].replace("-", "_"): []})
        else:
            reason = {"type": "NotFound", "message": "no networks here", "detail": ""}
            self._answer(404, {"NeutronError": reason})

    def _answer(self, code: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No line per request."""


if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()
