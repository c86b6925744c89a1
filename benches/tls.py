#!/usr/bin/env python3
"""What TLS costs tidegate and nginx: `benches/tls.py WORK CLIENTS [ROUNDS]`, with WORK handshakes, small or large.

Each server is alone on processor 0 with one worker process, the client on processor 1, in turn. It prints, for each server, the
median rate and the median processor time of a request. nginx, wrk and openssl have to be installed (`tests/setup.sh` does), and
`cargo build --release` has to have been run, or TIDEGATE names the program.
"""

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = 3
TIDEGATE = os.environ.get("TIDEGATE", "target/release/tidegate")
NGINX = """worker_processes 1; daemon off; error_log /dev/null; pid {folder}/pid; events {{ worker_connections 15000; }}
http {{ access_log off; keepalive_requests 1000000000; client_header_buffer_size 32k; default_type text/plain;
client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
server {{ listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {folder}/cert; ssl_certificate_key {folder}/key;
ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; location / {{ return 200 "hello $uri"; }} }} }}
"""


def certificate(folder):
    """A self-signed one with a key on P-256."""
    subject = ["-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{folder}/key"]
    command = ["openssl", "req", "-x509", *key, "-days", "30", *subject, "-out", f"{folder}/cert"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def start(name, folder, port):
    if name == "nginx":
        with open(f"{folder}/conf", "w") as conf:
            conf.write(NGINX.format(folder=folder, port=port))
        command = ["nginx", "-p", folder, "-c", f"{folder}/conf", "-e", "/dev/null"]
    else:
        command = [TIDEGATE, "--listen", f"hello=https://127.0.0.1:{port}", "--admin", "off", "--max-head", "32KiB"]
        command += ["--tls-cert", f"{folder}/cert", "--tls-key", f"{folder}/key"]
    server = subprocess.Popen(["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            time.sleep(0.02)
    server.kill()
    sys.exit(f"{name} did not serve within 10 s")


def processor_time(server):
    """Of all threads of the server and of its children, in seconds."""
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as children:
        processes = [server.pid, *children.read().split()]
    total = 0
    for process in processes:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/schedstat") as stat:
                total += int(stat.read().split()[0])
    return total / 1e9


def load(work, clients, port):
    """Asks for a while; how many were answered."""
    path = "x" * 15_000 if work == "large" else "joe"
    url = f"https://127.0.0.1:{port}/{path}"
    if work == "handshakes":
        command = [TIDEGATE, "stress", url, "-k", "--reuse", "never", "--close", "rst", "-c", clients, "-d", f"{SECONDS}s"]
        command += ["--warmup", "0s", "--progress", "off"]
        answered = r"Outcomes\s+ok (\d+)"
    else:
        command = ["wrk", "-t1", "-c", clients, "-d", f"{SECONDS}s", url]
        answered = r"(\d+) requests in"
    said = subprocess.run(["taskset", "-c", "1", *command], capture_output=True, text=True, timeout=60)
    found = re.search(answered, said.stdout)
    if not found or "Non-2xx" in said.stdout:
        sys.exit(f"the client failed: {said.stdout}{said.stderr}")
    return int(found.group(1))


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in ("handshakes", "small", "large"):
        sys.exit(__doc__)
    work, clients, rounds = sys.argv[1], sys.argv[2], int((sys.argv[3:] or [3])[0])
    seen = {"tidegate": [], "nginx": []}
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        for _ in range(rounds):
            for name, runs in seen.items():
                with socket.create_server(("127.0.0.1", 0)) as free:
                    port = free.getsockname()[1]
                server = start(name, folder, port)
                try:
                    before = processor_time(server)
                    done = load(work, clients, port)
                    runs.append((done / SECONDS, (processor_time(server) - before) / done * 1e6))
                finally:
                    server.terminate()
                    server.wait(20)
    for name, runs in seen.items():
        rate, cost = (statistics.median(figures) for figures in zip(*runs))
        print(f"{work}, {clients} clients: {name:8} {rate:9.0f}/s  {cost:7.2f} us of CPU each")


main()
