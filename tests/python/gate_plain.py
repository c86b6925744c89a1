"""Python's http.server as a backend: gate_plain.py PORT VERSION."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock = threading.Lock()
count = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = sys.argv[2]

    def answer(self):
        global count
        with lock:
            count += 1
            seen = count
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/large":
            text = b"x" * 3_000_000
        elif self.path == "/count":
            text = b"%d" % seen
        elif self.path == "/who":
            names = ("X-Forwarded-For", "X-Forwarded-Proto", "Host")
            text = " ".join(self.headers.get(name, "-") for name in names).encode()
        else:
            text = f"{self.command} {self.path.split('?')[0]} {len(body)}".encode()
        self.send_response(200)
        self.send_header("X-App", "1")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *args):
        pass


ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
