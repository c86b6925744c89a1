#!/usr/bin/env bash
# Installs what the tests need, and runs them all: `tests/run.sh`. With arguments it runs those tests only, as
# `cargo nextest run` (or, where that is not installed, `cargo test`) takes them: `tests/run.sh --test drain`.
#
# A light tier needs nothing installed and no root, and takes a minute: `cargo test --lib --workspace`.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -x tests/setup.sh ]; then
    tests/setup.sh
fi

# Tests flood real sockets: they get the descriptors the system allows.
ulimit -n "$(ulimit -Hn)"

# Flaky tests are named at the end, whatever the end is.
export TIDEGATE_FLAKY
TIDEGATE_FLAKY=$(mktemp)
at_the_end() {
    if [ -s "$TIDEGATE_FLAKY" ]; then
        echo "tests/run.sh: these are flaky, which is a defect to mend:" >&2
        cat "$TIDEGATE_FLAKY" >&2
    fi
    rm -f "$TIDEGATE_FLAKY"
}
trap at_the_end EXIT

if [ "$#" -gt 0 ]; then
    tests/once_more.sh "$@"
    exit
fi

# The promises, against the real binary; the state machines, in every interleaving; the benchmark: each peer does its
# work, and the report says what was measured.
tests/once_more.sh --workspace
# The programs in the documents.
tests/once_more.sh --workspace --doc

# The library without the rest: each feature compiles alone.
tests/features.sh

# What a request costs in instructions and system calls: figures that noise does not move.
cargo build --release -p tidegate -p tidegate-bench
cargo run --release -p tidegate-bench -- cost --check
