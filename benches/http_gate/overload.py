"""gunicorn with 2 sync workers and 10 ms a request, at ten times its load: alone, behind nginx, HAProxy and the gate.

    python3 benches/http_gate/overload.py [--program target/release/tidegate] [--gunicorn PATH] [--seconds 5]

Each client connects, asks once, and has 1 s of patience. Printed for each: useful answers a second, their p99, and what the
others saw and when. It needs gunicorn (tests/setup.sh installs one), nginx and HAProxy.
"""

import argparse
import asyncio
import collections
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PATIENCE = 1.0
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    """Waits until somebody listens, without connecting: a connection to a free port may reach itself."""
    for _ in range(500):
        with open("/proc/net/tcp") as sockets:
            if any(f":{port:04X}" in line.split()[1] and line.split()[3] == "0A" for line in sockets):
                return
        time.sleep(0.02)
    sys.exit(f"nobody listens at port {port}")


async def ask(port):
    """One client: the status that it saw, or how it ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(REQUEST)
        answer = await reader.read()
        return answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"
    finally:
        writer.transport.abort()


async def client(port, seen):
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            outcome = await ask(port)
    except TimeoutError:
        outcome = "no answer"
    except OSError:
        outcome = "reset"
    seen[outcome].append(time.monotonic() - began)


async def load(port, rate, seconds):
    """Clients that come evenly, whatever becomes of those before."""
    seen = collections.defaultdict(list)
    began = time.monotonic()
    waiting = set()
    for number in range(int(rate * seconds)):
        pause = began + number / rate - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(client(port, seen))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)
    return seen, time.monotonic() - began


async def alone(port, seconds):
    """What two clients that wait for each answer get: the peak."""
    seen = collections.defaultdict(list)

    async def one():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await client(port, seen)

    await asyncio.gather(*(one() for _ in range(3)))
    return len(seen["200"]) / seconds


def quantile(times, share):
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else float("nan")


def fronts(options, folder, start):
    """A name, a command, and the port of each, with a backend of its own: what waits in one stays there."""
    backend = start()
    yield "alone", None, backend
    backend = start()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/pid; error_log /dev/null; worker_processes 1;\n"
        f"events {{ worker_connections 8000; }}\nhttp {{ access_log off; server {{ listen 127.0.0.1:{port};\n"
        f"location / {{ proxy_pass http://127.0.0.1:{backend}; }} }}\n"
        + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        + "}\n"
    )
    yield "nginx", ["nginx", "-p", folder, "-c", config], port
    backend = start()
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n timeout queue 500ms\n"
        f"frontend f\n bind 127.0.0.1:{port}\n maxconn 8000\n default_backend b\n"
        f"backend b\n server s 127.0.0.1:{backend} maxconn 2 maxqueue 64\n"
    )
    yield "HAProxy, maxconn 2, maxqueue 64", ["haproxy", "-db", "-f", config], port
    backend = start()
    port = free_port()
    listen = f"proxy:http://127.0.0.1:{backend}=http://127.0.0.1:{port}"
    gate = [options.program, "--listen", listen, "--backend-connections", "2", "--queue", "64", "--admin", "off"]
    yield "the gate, 2 places, 64 wait", gate, port


def end(servers):
    for server in servers:
        server.terminate()
    for server in servers:
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    servers.clear()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "target/release/tidegate")
    parser.add_argument("--gunicorn", default=ROOT / "target/test-venv/bin/gunicorn")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--times", type=float, default=10, help="the load, in times of the peak")
    parser.add_argument("--only", default="", help="only what is called so")
    options = parser.parse_args()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    folder = pathlib.Path(tempfile.mkdtemp())
    servers = []

    def start_gunicorn():
        port = free_port()
        gunicorn = [options.gunicorn, "-w", "2", "-b", f"127.0.0.1:{port}", "--no-control-socket", "work:app"]
        servers.append(subprocess.Popen(gunicorn, cwd=HERE, **quiet))
        wait_for(port)
        time.sleep(1)
        return port

    try:
        peak = asyncio.run(alone(start_gunicorn(), 2))
        print(f"gunicorn, 2 sync workers, 10 ms a request: {peak:.0f}/s with 3 clients; offered {options.times:g} times that")
        print("| in front of it | useful a second | of the peak | p99 of the useful | the others |\n|---|---|---|---|---|")
        for name, command, port in fronts(options, folder, start_gunicorn):
            if options.only not in name:
                continue
            if command:
                servers.append(subprocess.Popen(command, **quiet))
                wait_for(port)
            seen, took = asyncio.run(load(port, peak * options.times, options.seconds))
            useful = seen.pop("200", [])
            others = ", ".join(
                f"{len(times)} {kind} (p50 {quantile(times, 0.5):.0f} ms, p99 {quantile(times, 0.99):.0f} ms)"
                for kind, times in sorted(seen.items())
            )
            rate = len(useful) / min(took, options.seconds)
            print(f"| {name} | {rate:.0f} | {rate / peak:.2f} | {quantile(useful, 0.99):.0f} ms | {others} |", flush=True)
            end(servers)
    finally:
        end(servers)
        shutil.rmtree(folder)


main()
