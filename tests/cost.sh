#!/usr/bin/env bash
# What a request costs in instructions and system calls, against what is stored in benches/cost.json.
# These counts do not depend on how busy the machine is, so that they can be checked where a time cannot.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in valgrind strace; do
    if ! command -v "$tool" >/dev/null; then
        echo "tests/cost.sh needs $tool: install the package of that name" >&2
        exit 1
    fi
done

cargo build --release -p tidegate -p tidegate-bench
target/release/tidegate-bench cost --check "$@"
