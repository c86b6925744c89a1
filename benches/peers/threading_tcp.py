"""Python's ThreadingTCPServer as its documentation shows it: one thread for each connection."""

import socket
import socketserver
import sys
import time


def burn(seconds):
    """Spends this much CPU time of the calling thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(50):
            pass


def parse_mode(text):
    """`echo`, `work-cpu:1ms` or `work-sleep:20ms` as a function to call before each answer."""
    if text == "echo":
        return None
    kind, _, amount = text.partition(":")
    if not amount.endswith("ms"):
        sys.exit(f"threading_tcp.py: `{text}` is not a mode: write echo, work-cpu:1ms or work-sleep:20ms")
    seconds = float(amount[:-2]) / 1000
    work = {"work-cpu": burn, "work-sleep": time.sleep}[kind]
    return lambda: work(seconds)


class Handler(socketserver.BaseRequestHandler):
    work = None

    def handle(self):
        try:
            while data := self.request.recv(65536):
                if Handler.work:
                    Handler.work()
                self.request.sendall(data)
        except OSError:
            pass  # the client went away


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def server_bind(self):
        # Inherited by every accepted socket, as with the other peers.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().server_bind()

    def handle_error(self, request, client_address):
        pass  # no traceback for each refused thread


def main():
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    host, _, port = options["--listen"].rpartition(":")
    mode = parse_mode(options.get("--mode", "echo"))
    Handler.work = staticmethod(mode) if mode else None
    # The class says 5.
    Server.request_queue_size = int(options.get("--backlog", 4096))
    with Server((host, int(port)), Handler) as server:
        print("listening on tcp://%s:%d" % server.server_address, flush=True)
        server.serve_forever()


main()
