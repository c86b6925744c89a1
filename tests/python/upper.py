"""The server that examples/upper.rs ports: a threading TCP server of Python's socketserver."""

import socketserver
import sys


class Upper(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline(1024):
            self.wfile.write(line.upper())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    host, port = sys.argv[1].rsplit(":", 1)
    with Server((host, int(port)), Upper) as server:
        print("%s:%d" % server.server_address, flush=True)
        server.serve_forever()
