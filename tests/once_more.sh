#!/usr/bin/env bash
# Runs tests, and each that failed once more, alone: `tests/once_more.sh CARGO_ARGUMENT...`, like `--workspace`, or
# `-p tidegate --doc`. What then passes is flaky: it is named, here and in the file that TIDEGATE_FLAKY names, and is
# a defect to mend. What fails again has failed.
set -uo pipefail
cd "$(dirname "$0")/.."
profile=${TIDEGATE_TEST_PROFILE:-checked}
junit=target/nextest/ci/junit.xml
failed=$(mktemp)
trap 'rm -f "$failed" "$failed.log"' EXIT

# Prints "BINARY<tab>TEST" for each test that failed, as the report of nextest says.
failed_of_nextest() {
    awk 'BEGIN { RS = "<testcase " }
        NR > 1 && /<(failure|error)/ {
            name = $0; sub(/^name="/, "", name); sub(/".*/, "", name)
            binary = $0; sub(/.*classname="/, "", binary); sub(/".*/, "", binary)
            print binary "\t" name
        }' "$junit"
}

# The same from what `cargo test` prints: "CARGO_ARGUMENT<tab>TEST".
failed_of_cargo() {
    awk '/^ *Running unittests .*(lib|mod)\.rs/ { target = "--lib" }
        /^ *Running unittests .*main\.rs/ { target = "--bins" }
        /^ *Running tests\// { target = $2; sub(/^tests\//, "", target); sub(/(\/main)?\.rs$/, "", target); target = "--test=" target }
        /^ *Doc-tests / { target = "--doc" }
        /^test .* \.\.\. FAILED$/ { name = $0; sub(/^test /, "", name); sub(/( - (should panic|compile|compile fail))? \.\.\. FAILED$/, "", name); print target "\t" name }
    ' "$failed.log"
}

with_nextest() {
    rm -f "$junit"
    cargo nextest run --profile ci --cargo-profile "$profile" "$@"
    local code=$?
    # 100: tests failed. Anything else is not about a single test.
    [ "$code" = 100 ] || return "$code"
    failed_of_nextest >"$failed"
    again() { # BINARY TEST CARGO_ARGUMENT...
        local filter="binary_id(=$1) & test(=$2)"
        shift 2
        cargo nextest run --cargo-profile "$profile" --test-threads 1 "$@" -E "$filter"
    }
    all_again "$@"
}

with_cargo() {
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-2} cargo test --no-fail-fast --profile "$profile" "$@" 2>&1 | tee "$failed.log"
    local code=${PIPESTATUS[0]}
    [ "$code" != 0 ] || return 0
    failed_of_cargo >"$failed"
    # A build that failed, or a whole program that died.
    [ -s "$failed" ] || return "$code"
    again() { # TARGET TEST CARGO_ARGUMENT...
        local target=$1 name=$2
        shift 2
        # The target is chosen anew: `--workspace --test=x` runs it wherever it is.
        local rest=()
        for argument in "$@"; do
            case $argument in --lib | --bins | --doc | --test=*) ;; *) rest+=("$argument") ;; esac
        done
        # A name that finds nothing has not passed.
        RUST_TEST_THREADS=1 cargo test --profile "$profile" "${rest[@]}" "$target" -- --exact "$name" 2>&1 | tee "$failed.log"
        [ "${PIPESTATUS[0]}" = 0 ] && grep -q '^test result: ok\. [1-9]' "$failed.log"
    }
    all_again "$@"
}

all_again() {
    local target name flaky=() broken=()
    while IFS=$'\t' read -r target name <&3; do
        echo "tests/once_more.sh: $name ($target) failed; once more, alone" >&2
        if again "$target" "$name" "$@"; then
            flaky+=("$name ($target)")
        else
            broken+=("$name ($target)")
        fi
    done 3<"$failed"
    for name in "${flaky[@]}"; do
        echo "FLAKY: $name failed among others and passed alone" | tee -a "${TIDEGATE_FLAKY:-/dev/null}" >&2
    done
    for name in "${broken[@]}"; do
        echo "FAILED: $name" >&2
    done
    [ "${#broken[@]}" = 0 ]
}

# Examples in documents are no tests for nextest.
case " $* " in
*" --doc "*) with_cargo "$@" ;;
*) if cargo nextest --version >/dev/null 2>&1; then with_nextest "$@"; else with_cargo "$@"; fi ;;
esac
