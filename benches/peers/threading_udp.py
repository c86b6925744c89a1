"""Python's ThreadingUDPServer as its documentation shows it: one thread for each datagram."""

import socketserver
import sys
import time


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
    handler = {"echo": Echo, "time": Time}[options.get("--mode", "echo")]
    with Server((host, int(port)), handler) as server:
        print("listening on udp://%s:%d" % server.server_address, flush=True)
        server.serve_forever()


main()
