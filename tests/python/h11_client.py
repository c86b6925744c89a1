"""A strict client: everything that a server says must be HTTP/1.1 as h11 reads it. Usage: h11_client.py HOST PORT.

The server answers every path with its body, but: /pulled is a chunked megabyte, /sized one with a length, /empty is
204, /fails is 500."""

import socket
import sys

import h11

MEGABYTE = 1 << 20


def converse(requests, pipelined):
    """Sends requests as (method, target, headers, body); gives the answers as (status, headers, body)."""
    connection = h11.Connection(h11.CLIENT)
    server = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    answers = []

    def send(request):
        method, target, headers, body = request
        framing = [("Content-Length", str(len(body)))] if body is not None else []
        out = connection.send(h11.Request(method=method, target=target, headers=[("Host", "h"), *headers, *framing]))
        if body:
            out += connection.send(h11.Data(data=body))
        return out + connection.send(h11.EndOfMessage())

    def receive():
        answer, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(server.recv(65536))
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answers.append((answer.status_code, dict(answer.headers), body))
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise AssertionError(event)

    if pipelined:
        # h11 sends one request at a time: the bytes of the others are made by connections of their own.
        single = "".join(f"{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n" for method, target, *_ in requests[1:])
        server.sendall(send(requests[0]) + single.encode())
        receive()
        for method, target, headers, body in requests[1:]:
            connection.start_next_cycle()
            send((method, target, headers, body))
            receive()
    else:
        for number, request in enumerate(requests):
            if number:
                connection.start_next_cycle()
            server.sendall(send(request))
            receive()
    assert connection.trailing_data[0] == b"", connection.trailing_data
    return answers


BODY = bytes(range(256)) * 400
REQUESTS = [
    ("GET", "/", [], None),
    ("POST", "/", [("Content-Type", "a/b")], BODY),
    ("POST", "/", [("Expect", "100-continue")], BODY),
    ("HEAD", "/pulled", [], None),
    ("GET", "/pulled", [], None),
    ("HEAD", "/sized", [], None),
    ("GET", "/sized", [], None),
    ("GET", "/empty", [], None),
    ("GET", "/fails", [], None),
    ("OPTIONS", "*", [], None),
    ("GET", "/", [("Connection", "close")], None),
]
answers = converse(REQUESTS, pipelined=False)
assert [status for status, *_ in answers] == [200] * 7 + [204, 500, 200, 200], [status for status, *_ in answers]
assert answers[1][2] == answers[2][2] == BODY and answers[1][1][b"content-type"] == b"a/b"
assert [len(body) for *_, body in answers[3:8]] == [0, MEGABYTE, 0, MEGABYTE, 0]
assert answers[3][1][b"transfer-encoding"] == b"chunked" and answers[5][1][b"content-length"] == b"%d" % MEGABYTE
assert answers[-1][1][b"connection"] == b"close"
answers = converse([("GET", path, [], None) for path in ("/", "/pulled", "/sized", "/empty", "/fails", "/")], pipelined=True)
assert [status for status, *_ in answers] == [200, 200, 200, 204, 500, 200]
print("ok")
