"""Python's ThreadingUDPServer as its documentation shows it: one thread for each datagram."""

import socketserver
import sys
import time


def burn(seconds):
    """Spends this much CPU time of the calling thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(50):
            pass


def parse_work(text):
    """`work-cpu:1ms` or `work-sleep:20ms` as a function to call before each answer."""
    kind, _, amount = text.partition(":")
    if not amount.endswith("ms") or kind not in ("work-cpu", "work-sleep"):
        sys.exit(f"threading_udp.py: `{text}` is not a mode: write echo, time, work-cpu:1ms or work-sleep:20ms")
    seconds = float(amount[:-2]) / 1000
    work = {"work-cpu": burn, "work-sleep": time.sleep}[kind]
    return lambda: work(seconds)


class Work(socketserver.BaseRequestHandler):
    work = None

    def handle(self):
        data, sock = self.request
        Work.work()
        sock.sendto(data, self.client_address)


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data, self.client_address)


class Time(socketserver.BaseRequestHandler):
    def handle(self):
        _, sock = self.request
        sock.sendto(time.ctime().encode() + b"\n", self.client_address)


class Server(socketserver.ThreadingUDPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def main():
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    host, _, port = options["--listen"].rpartition(":")
    mode = options.get("--mode", "echo")
    handler = {"echo": Echo, "time": Time}.get(mode, Work)
    if handler is Work:
        Work.work = staticmethod(parse_work(mode))
    with Server((host, int(port)), handler) as server:
        print("listening on udp://%s:%d" % server.server_address, flush=True)
        server.serve_forever()


main()
