#!/usr/bin/env bash
# Installs what the tests need, and runs them all: `tests/run.sh`. With arguments it runs those tests only, as
# `cargo nextest run` (or, where that is not installed, `cargo test`) takes them: `tests/run.sh --test drain`.
#
# A light tier needs nothing installed and no root, and takes a minute: `cargo test --lib --workspace`.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/phase.sh

# Tests flood real sockets: they get the descriptors the system allows.
ulimit -n "$(ulimit -Hn)"

# Flaky tests, and those that could not decide because other programs had the processors, are named at the end, whatever
# the end is.
export TIDEGATE_FLAKY
TIDEGATE_FLAKY=$(mktemp)
tools_log=$(mktemp)
at_the_end() {
    if [ -s "$TIDEGATE_FLAKY" ]; then
        echo "tests/run.sh: these are flaky, which is a defect to mend, or could not decide on this machine:" >&2
        cat "$TIDEGATE_FLAKY" >&2
    fi
    rm -f "$TIDEGATE_FLAKY" "$tools_log"
}
trap at_the_end EXIT

if [ "$#" -gt 0 ]; then
    tests/setup.sh
    tests/once_more.sh "$@"
    exit
fi

# What the tests need comes over the network, which leaves the processors to the compiler.
tests/setup.sh >"$tools_log" 2>&1 &
setup=$!
phase "build of the tests" tests/once_more.sh --workspace --no-run
tools_are_there() {
    wait "$setup" || { cat "$tools_log" >&2; return 1; }
}
phase "tools for the tests, after that" tools_are_there

# The promises, against the real binary; the state machines, in every interleaving; the benchmark: each peer does its
# work, and the report says what was measured.
phase "tests" tests/once_more.sh --workspace
# The programs in the documents.
phase "programs in the documents" tests/once_more.sh --workspace --doc

# The library without the rest: each feature compiles alone.
phase "each feature alone" tests/features.sh

# What a request costs in instructions and system calls: figures that noise does not move. The program is the one that
# users build; the one that counts was built with the tests. A wake is left out: its server is in the program that counts, and the
# stored figure is that of a release.
phase "build of the program" cargo build --release -p tidegate
profile=${TIDEGATE_TEST_PROFILE:-checked}
phase "cost of a request" "target/${profile/#dev/debug}/tidegate-bench" cost --check --only echo,connect,refuse,udp,http,gate,http-gate --tidegate target/release/tidegate
