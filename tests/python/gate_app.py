"""A small WSGI application that says what it was asked, behind the gate. Also for cheroot: gate_app.py PORT."""

import sys
import threading
import time

lock = threading.Lock()
count = 0


def body_length(environ):
    stream = environ["wsgi.input"]
    if environ.get("CONTENT_LENGTH"):
        return len(stream.read(int(environ["CONTENT_LENGTH"])))
    if environ.get("wsgi.input_terminated"):
        return len(stream.read())
    return 0


def tokens():
    for number in range(5):
        yield b"token %d\n" % number
        time.sleep(0.02)


def app(environ, start_response):
    global count
    with lock:
        count += 1
        seen = count
    path = environ["PATH_INFO"]
    headers = [("X-App", "1"), ("Content-Type", "text/plain")]
    if path == "/stream":
        start_response("200 OK", headers)
        return tokens()
    if path == "/large":
        text = b"x" * 3_000_000
    elif path == "/count":
        text = b"%d" % seen
    elif path == "/slow":
        time.sleep(0.01)
        text = b"slow"
    elif path == "/who":
        names = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_HOST")
        text = " ".join(environ.get(name, "-") for name in names).encode()
    else:
        text = f"{environ['REQUEST_METHOD']} {path} {body_length(environ)}".encode()
    start_response("200 OK", headers + [("Content-Length", str(len(text)))])
    return [text]


if __name__ == "__main__":
    from cheroot.wsgi import Server

    address = ("127.0.0.1", int(sys.argv[1]))
    Server(address, app, numthreads=2, accepted_queue_size=2).start()
