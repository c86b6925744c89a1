"""The same answers as gate_app.py, from Flask."""

import time

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/stream")
def stream():
    def tokens():
        for number in range(5):
            yield f"token {number}\n"
            time.sleep(0.02)

    return Response(tokens(), mimetype="text/plain")


@app.get("/large")
def large():
    return b"x" * 3_000_000


@app.get("/who")
def who():
    forwarded = [request.headers.get(name, "-") for name in ("X-Forwarded-For", "X-Forwarded-Proto")]
    return " ".join([*forwarded, request.host])


@app.route("/<path:path>", methods=["GET", "POST", "HEAD"])
def any_path(path):
    return f"{request.method} /{path} {len(request.get_data())}"
