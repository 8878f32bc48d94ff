from __future__ import annotations

import http.server
import threading

import pytest
from cryptography.x509 import ocsp

from tests.support.ocsp_authority import Authority


class Responder(http.server.ThreadingHTTPServer):
    """An OCSP responder in threads of its own: no hub runs it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}/ocsp"

    def answer(self, request):
        self.requests.append(request)
        asked = ocsp.load_der_ocsp_request(request).serial_number
        return self.authority.respond(next(each for each in self.authority.issued if each.serial_number == asked))


class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        answer = self.server.answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def threaded(tmp_path):
    """A CA with a responder that no hub runs."""
    with Responder() as responder:
        thread = threading.Thread(target=responder.serve_forever)
        thread.start()
        responder.authority = Authority(tmp_path, responder.url)
        yield responder
        responder.shutdown()
        thread.join()
