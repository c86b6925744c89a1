"""How h11, a strict reader of HTTP/1.1, reads what clients send: each line of stdin is one connection's bytes in
hexadecimal, each line of stdout the statuses that a server on h11 would answer with."""

import sys

import h11


def statuses(data):
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    connection.receive_data(b"")
    said = []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                status = 501 if event.method == b"CONNECT" else 200
            elif isinstance(event, h11.EndOfMessage):
                connection.send(h11.Response(status_code=status, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                said.append(status)
                if connection.our_state is h11.MUST_CLOSE:
                    break
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed) or event in (h11.NEED_DATA, h11.PAUSED):
                break
    except h11.RemoteProtocolError as error:
        said.append(error.error_status_hint)
    return said


for line in sys.stdin:
    print(*statuses(bytes.fromhex(line)))
