#!/usr/bin/env bash
# Installs what the tests need and is not there: quick when all of it is.
set -euo pipefail

missing=()
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null || missing+=("$2")
}
need prometheus prometheus
need promtool prometheus
need chromium chromium
need node nodejs
need valgrind valgrind
need strace strace
# The page is looked at with a font that has every letter it uses.
[ -d /usr/share/fonts/truetype/dejavu ] || missing+=(fonts-dejavu-core)

if [ "${#missing[@]}" -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    # No service is to start: the tests start what they need.
    $sudo apt-get update -q
    $sudo env RUNLEVEL=1 apt-get install -qy --no-install-recommends "${missing[@]}"
fi
