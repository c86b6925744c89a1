"""Two clients that others wrote, websockets and wsproto, against an echo.

Usage: websocket_clients.py HOST PORT [AUTHORITY]. With the certificate of an authority, inside TLS.
"""

import socket
import ssl
import sys

import websockets.sync.client
import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage

HOST, PORT = sys.argv[1], int(sys.argv[2])
TLS = ssl.create_default_context(cafile=sys.argv[3]) if len(sys.argv) > 3 else None


def with_websockets():
    # It offers to compress, which the server need not take up.
    with websockets.sync.client.connect(f"{'wss' if TLS else 'ws'}://{HOST}:{PORT}/x", ssl=TLS) as client:
        for message in ("", "hello", "J\u00f6rg \U0001f600", "x" * 70_000, b"", b"\x00\xff" * 500_000):
            client.send(message)
            assert client.recv(20) == message
        client.send(["frag", "men", "ts"])
        assert client.recv(20) == "fragments"
        assert client.ping(b"payload").wait(20)
    assert client.close_code == 1000, client.close_code


def with_wsproto():
    server = socket.create_connection((HOST, PORT), 20)
    if TLS:
        server = TLS.wrap_socket(server, server_hostname=HOST)
    connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    server.sendall(connection.send(Request(host=f"{HOST}:{PORT}", target="/")))

    def next_event():
        while True:
            for event in connection.events():
                return event
            connection.receive_data(server.recv(65536) or None)

    assert isinstance(next_event(), AcceptConnection)
    server.sendall(connection.send(TextMessage("one ", message_finished=False)))
    server.sendall(connection.send(Ping(b"between")))
    event = next_event()
    assert isinstance(event, Pong) and event.payload == b"between", event
    server.sendall(connection.send(TextMessage("two")))
    event = next_event()
    assert isinstance(event, TextMessage) and event.data == "one two", event
    server.sendall(connection.send(BytesMessage(b"\x00" * 1000)))
    size = 0
    while True:
        event = next_event()
        size += len(event.data)
        if event.message_finished:
            break
    assert size == 1000
    server.sendall(connection.send(CloseConnection(4321, "bye")))
    event = next_event()
    assert isinstance(event, CloseConnection) and event.code == 4321, event
    assert server.recv(1) == b""


with_websockets()
with_wsproto()
print("ok")
