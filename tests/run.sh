#!/usr/bin/env bash
# Installs what the tests need, and runs them all: `tests/run.sh`. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -x tests/setup.sh ]; then
    tests/setup.sh
fi

# Tests flood real sockets: they get the descriptors the system allows.
ulimit -n "$(ulimit -Hn)"

# The promises, against the real binary. One test at a time within a file: each may use both cores.
promises() {
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-2} cargo test --profile checked "$@"
}
if ! promises "$@"; then
    # Real sockets and real time on a machine that others use: once more, and then it counts.
    echo "tests/run.sh: a test failed (above); all of them run once more" >&2
    promises "$@"
fi

# The load generator and the units: what each file promises.
cargo test --profile checked -p tidegate-units -p tidegate-stress

# The state machines, in every interleaving.
cargo test --profile checked -p tidegate-model

# The benchmark: each peer does its work, and the report says what was measured.
cargo test --profile checked -p tidegate-bench

# What a request costs in instructions and system calls: figures that noise does not move.
cargo build --release -p tidegate -p tidegate-bench
cargo run --release -p tidegate-bench -- cost --check
