#!/usr/bin/env bash
# Installs what the tests need and is not there: quick when all of it is.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null || missing+=("$2")
}
need prometheus prometheus
need promtool prometheus
need chromium chromium
need node nodejs
# Other load generators and a server to load, to compare rates; a place with few ports.
need nginx nginx-light
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing+=(libnginx-mod-stream)
need wrk wrk
need h2load nghttp2-client
need ab apache2-utils
need curl curl
need openssl openssl
need gnutls-cli gnutls-bin
# Others that read the same bytes.
need haproxy haproxy
need ip iproute2
# Backends for the gate, and a balancer before and behind it.
need haproxy haproxy
need socat socat
need redis-server redis-server
need redis-benchmark redis-tools
[ -x "$(echo /usr/lib/postgresql/*/bin/pgbench)" ] || missing+=(postgresql)
# Readers of manual pages, and the shells that complete options.
need mandoc mandoc
need groff groff
need zsh zsh
need fish fish
# A slow attacker that others wrote, and a clock that steps.
need slowhttptest slowhttptest
need faketime faketime
# What a request costs, counted.
need valgrind valgrind
need strace strace
need unshare util-linux
# A supervisor, and its opinion of the units.
need systemd-analyze systemd
need systemd-socket-activate systemd
# A fresh system to install the package in.
need debootstrap debootstrap
need taskset util-linux
# Clients in another language, and an environment for their packages.
need python3 python3
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
# The page is looked at with a font that has every letter it uses.
[ -d /usr/share/fonts/truetype/dejavu ] || missing+=(fonts-dejavu-core)

if [ "${#missing[@]}" -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    # No service is to start: the tests start what they need.
    $sudo apt-get update -q
    $sudo env RUNLEVEL=1 apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# Another language's reader of HdrHistogram logs, its strict HTTP, its WebSockets, and servers for the gate for HTTP.
if ! target/test-venv/bin/python -c \
    'import hdrh, h11, websockets, wsproto, gunicorn, flask, django, waitress, cheroot, granian, kubernetes_validate' \
    2>/dev/null; then
    python3 -m venv target/test-venv
    target/test-venv/bin/pip install -q hdrhistogram h11 websockets wsproto \
        gunicorn flask django waitress cheroot granian kubernetes-validate==1.37.0
fi

# A fresh system of the same release as this one, to install the package in. Kept as an archive: each test unpacks its own.
if [ ! -f target/test-chroot.tar ]; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    fresh=$(mktemp -d)
    $sudo debootstrap --variant=minbase --include=adduser "$(. /etc/os-release && echo "$VERSION_CODENAME")" \
        "$fresh/root" >"$fresh/log" || { tail -n 20 "$fresh/log" >&2; exit 1; }
    $sudo tar --one-file-system -C "$fresh/root" --exclude='./var/cache/apt/archives/*.deb' -cf target/test-chroot.part .
    mv target/test-chroot.part target/test-chroot.tar
    $sudo rm -rf "$fresh"
fi
