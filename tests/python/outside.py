"""tidegate seen from outside, by plain Python sockets: what a client written for any other server
of the kind would do.

Run by tests/socketserver.rs, with the program to test in TIDEGATE.
"""

import json
import os
import random
import re
import signal
import socket
import socketserver
import subprocess
import threading
import time
import unittest
import urllib.request

TIDEGATE = os.environ["TIDEGATE"]
SOON = 20
LISTEN = [
    "echo=tcp://127.0.0.1:0",
    "hello=tcp://127.0.0.1:0",
    "time=tcp://127.0.0.1:0",
    "echo=udp://127.0.0.1:0",
    "hello=udp://127.0.0.1:0",
    "time=udp://127.0.0.1:0",
    "time=udp://[::1]:0",
    "work=udp://127.0.0.1:0",
    "echo=udp://0.0.0.0:0",
]


class Server:
    """A running tidegate; afterwards it is drained, and every connection must be accounted for."""

    def __init__(self, listen, *options, env=None):
        arguments = [TIDEGATE, "--admin", "127.0.0.1:0", *options]
        for one in listen:
            arguments += ["--listen", one]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env)
        self.addresses = []
        self.admin = None
        while len(self.addresses) < len(listen) or self.admin is None:
            line = self.process.stdout.readline()
            assert line, "the server ended at its start"
            if found := re.search(r"(\w+) on (tcp|udp)://(.+):(\d+)$", line.strip()):
                name, scheme, host, port = found.groups()
                self.addresses.append((name, scheme, host.strip("[]"), int(port)))
            elif found := re.search(r"http://[^/]+", line):
                self.admin = found.group(0)

    def find(self, name, scheme, host="127.0.0.1"):
        return next((h, p) for n, s, h, p in self.addresses if (n, s, h) == (name, scheme, host))

    def metric(self, name):
        """The sum of all samples of a metric."""
        text = urllib.request.urlopen(self.admin + "/metrics", timeout=SOON).read().decode()
        found = re.findall(r"^%s(?:\{.*\})? (\S+)$" % name, text, re.MULTILINE)
        return sum(float(value) for value in found)

    def conserved(self):
        """accepted = dropped + closed + queued + active + idle"""
        accepted = self.metric("tidegate_connections_accepted_total")
        dropped = self.metric("tidegate_connections_dropped_total")
        closed = self.metric("tidegate_connections_closed_total")
        return accepted, dropped + closed + self.metric("tidegate_connections")

    def end(self):
        deadline = time.monotonic() + SOON
        while self.metric("tidegate_connections") > 0:
            assert time.monotonic() < deadline, "connections stay open"
            time.sleep(0.01)
        accepted, accounted = self.conserved()
        assert accepted == accounted, (accepted, accounted)
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(SOON)
        self.process.stdout.close()
        assert code == 0, code


class Outside(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(LISTEN)

    @classmethod
    def tearDownClass(cls):
        cls.server.end()

    def tcp(self, name):
        return socket.create_connection(self.server.find(name, "tcp"), timeout=SOON)

    def udp(self, name, host="127.0.0.1"):
        address = self.server.find(name, "udp", host)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        client = socket.socket(family, socket.SOCK_DGRAM)
        client.settimeout(SOON)
        client.connect(address)
        return client

    def assert_time(self, said, end=""):
        """It is what ctime returns, in the local time zone, and of this moment, and then this end."""
        self.assertEqual(len(said), 24 + len(end))
        parsed = time.mktime(time.strptime(said.decode(), "%a %b %d %H:%M:%S %Y" + end))
        self.assertLess(abs(parsed - time.time()), 5)
        self.assertEqual(said.decode(), time.ctime(parsed) + end)

    def read_all(self, client):
        said = b""
        while piece := client.recv(65536):
            said += piece
        return said

    def test_udp_time(self):
        for host in ["127.0.0.1", "::1"]:
            with self.udp("time", host) as client:
                for request in [b"", b"what time is it?", b"\0" * 2048]:
                    client.send(request)
                    self.assert_time(client.recv(1024))

    def test_udp_echo_and_hello(self):
        with self.udp("echo") as client:
            for size in [0, 1, 1472, 2048]:
                client.send(b"x" * size)
                self.assertEqual(client.recv(4096), b"x" * size)
        with self.udp("hello") as client:
            client.send(b"world")
            self.assertEqual(client.recv(1024), b"hello world")
        with self.udp("work") as client:
            client.send(b"hard")
            self.assertEqual(client.recv(1024), b"hard")

    def test_udp_reply_from_the_address_that_was_asked(self):
        _, port = self.server.find("echo", "udp", "0.0.0.0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(SOON)
            client.sendto(b"who?", ("127.0.0.42", port))
            self.assertEqual(client.recvfrom(64), (b"who?", ("127.0.0.42", port)))

    def test_udp_many_clients(self):
        clients = [self.udp("echo") for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        for number, client in enumerate(clients):
            self.assertEqual(client.recv(64), b"%d" % number)
            client.close()

    def test_tcp_time(self):
        with self.tcp("time") as client:
            self.assert_time(self.read_all(client), "\n")

    def test_tcp_time_half_closed(self):
        for _ in range(20):
            with self.tcp("time") as client:
                client.shutdown(socket.SHUT_WR)
                self.assert_time(self.read_all(client), "\n")

    def test_tcp_time_to_a_client_that_talks(self):
        with self.tcp("time") as client:
            client.sendall(b"what time is it?\n" * 100)
            self.assert_time(self.read_all(client), "\n")

    def test_hello_line_too_long(self):
        with self.tcp("hello") as client:
            client.sendall(b"fine\n" + b"x" * (64 * 1024 + 2))
            # What came before is answered, and the end is a FIN and no reset.
            self.assertEqual(self.read_all(client), b"hello fine\n")

    def test_hello_longest_line(self):
        with self.tcp("hello") as client:
            client.sendall(b"x" * 64 * 1024 + b"\r\n")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(self.read_all(client), b"hello " + b"x" * 64 * 1024 + b"\r\n")

    def test_echo_half_close(self):
        with self.tcp("echo") as client:
            client.sendall(b"to the end")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(self.read_all(client), b"to the end")

    def test_one_byte_at_a_time(self):
        with self.tcp("hello") as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"slowly\n":
                client.send(bytes([byte]))
                time.sleep(0.005)
            self.assertEqual(client.recv(1024), b"hello slowly\n")
            for byte in b"and again\n":
                client.send(bytes([byte]))
                time.sleep(0.005)
            self.assertEqual(client.recv(1024), b"hello and again\n")

    def test_a_megabyte_sent_without_reading(self):
        """The reply is kept (within the limits) while the client only sends; then it reads all."""
        data = os.urandom(1024 * 1024)
        with self.tcp("echo") as client:
            done = threading.Event()

            def send():
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                done.set()

            sender = threading.Thread(target=send)
            sender.start()
            # Long enough for the kernel's buffers and the server's to fill, if they do.
            done.wait(1)
            self.assertEqual(self.read_all(client), data)
            sender.join()

    def test_silent_clients_do_not_hold_workers(self):
        silent = [self.tcp("echo") for _ in range(100)]
        half = [self.tcp("hello") for _ in range(100)]
        for client in half:
            client.sendall(b"half a li")
        with self.tcp("echo") as client:
            client.sendall(b"ping")
            self.assertEqual(client.recv(64), b"ping")
        for client in half:
            client.sendall(b"ne\n")
            self.assertEqual(client.recv(64), b"hello half a line\n")
        for client in silent + half:
            client.close()

    def test_status_knows_every_listener(self):
        status = urllib.request.urlopen(self.server.admin + "/status.json", timeout=SOON).read().decode()
        self.assertTrue(json.loads(status))
        self.assertEqual(len(set(re.findall(r'udp://[^"]+', status))), 6)


class Hello(socketserver.StreamRequestHandler):
    """What a Python program answers that says hello to each line, and the judge of ours."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(bytes("hello {}".format(line.decode("latin-1")), "latin-1"))


class ByteForByte(unittest.TestCase):
    """What Python's own server answers, ours answers too."""

    @classmethod
    def setUpClass(cls):
        cls.theirs = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hello)
        threading.Thread(target=cls.theirs.serve_forever, daemon=True).start()
        cls.ours = Server(["hello=tcp://127.0.0.1:0"], "--max-line", "128KiB")

    @classmethod
    def tearDownClass(cls):
        cls.theirs.shutdown()
        cls.theirs.server_close()
        cls.ours.end()

    def talk(self, address, pieces):
        with socket.create_connection(address, timeout=SOON) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            said = b""
            while piece := client.recv(65536):
                said += piece
            return said

    def judge(self, *pieces):
        expected = self.talk(self.theirs.server_address, pieces)
        self.assertEqual(self.talk(self.ours.find("hello", "tcp"), pieces), expected, pieces)

    def test_ends_of_lines(self):
        self.judge(b"a\r\n")
        self.judge(b"abc\ndef")
        self.judge(b"a\nb\r\n\n\r\n\r\r\n")
        self.judge(b"last\r")
        self.judge(b"\r")
        self.judge(b"one\rtwo\r\nthree\r")
        self.judge(b"\0\xff\x85\x1c\n\v\f\n")
        self.judge(b"")
        self.judge(b"\n" * 5000)

    def test_lines_in_pieces(self):
        self.judge(b"a", b"\r", b"\n", b"b\r\n", b"c", b"d")
        self.judge(b"x" * 40_000, b"x" * 30_000 + b"\n" + b"y" * 20, b"\r\nz")

    def test_a_line_of_70_000_bytes(self):
        self.judge(b"x" * 70_000 + b"\n")
        self.judge(b"x" * 70_000)
        self.judge(b"a\n" + b"x" * 70_000 + b"\r\nb\n")

    def test_a_line_of_the_longest_kind(self):
        for end in [b"\n", b"\r\n", b"", b"\r"]:
            self.judge(b"x" * 128 * 1024 + end)

    def test_whatever_comes(self):
        chance = random.Random(5000)
        for _ in range(50):
            text = b"".join(chance.choice([b"\r", b"\n", b"\r\n", b"a", b"xyz" * 99]) for _ in range(chance.randrange(60)))
            cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(6)))
            self.judge(*(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])))


class TimeZones(unittest.TestCase):
    """Whatever TZ says, `time` understands it as C does, which is what Python asks."""

    ZONES = [
        None, "", "UTC", ":Europe/Berlin", "Asia/Kathmandu", "CET-1CEST", "XXX3YYY", "posix/Asia/Tokyo",
        "right/UTC", "<-03>3<-02>,M3.5.0/-2,M10.5.0/-1", "/usr/share/zoneinfo/Asia/Tokyo", "AAA24:00",
        "No/Such", "../../etc/passwd",
    ]

    def said(self, zone):
        env = {name: value for name, value in os.environ.items() if name != "TZ"}
        if zone is not None:
            env["TZ"] = zone
        code = "import time; print(time.ctime())"
        by_c = lambda: subprocess.run(["python3", "-c", code], env=env, capture_output=True, check=True).stdout
        server = Server(["time=tcp://127.0.0.1:0", "time=udp://127.0.0.1:0"], env=env)
        before = by_c()
        with socket.create_connection(server.find("time", "tcp"), timeout=SOON) as client:
            tcp = client.makefile("rb").read()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(SOON)
            client.sendto(b"", server.find("time", "udp"))
            udp = client.recv(64)
        after = by_c()
        server.end()
        return before, tcp, udp, after

    def test_every_zone_is_what_c_takes_it_for(self):
        form = "%a %b %d %H:%M:%S %Y"
        for zone in self.ZONES:
            before, tcp, udp, after = self.said(zone)
            moments = [time.strptime(one.decode().rstrip("\n"), form) for one in (before, tcp, udp, after)]
            self.assertEqual(moments, sorted(moments), (zone, before, tcp, udp, after))
            self.assertEqual((len(tcp), tcp[-1:], len(udp)), (25, b"\n", 24), zone)


class SlowDatagrams(unittest.TestCase):
    def test_as_many_at_once_as_there_are_workers(self):
        server = Server(["work=udp://127.0.0.1:0"], "--work", "sleep:200ms", "--workers", "16")
        address = server.find("work", "udp")
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(16)]
        began = time.monotonic()
        for client in clients:
            client.settimeout(SOON)
            client.sendto(b"x", address)
        for client in clients:
            self.assertEqual(client.recv(64), b"x")
            client.close()
        # One after the other they would take 3.2 s.
        self.assertLess(time.monotonic() - began, 1.6)
        server.end()


if __name__ == "__main__":
    unittest.main(verbosity=2)
