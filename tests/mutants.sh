#!/usr/bin/env bash
# How many small faults in the parts that must never be wrong do their unit tests notice? cargo-mutants makes the faults,
# in a copy of the tree that has only the library: so one costs some seconds. `tests/mutants.sh [FOLDER..]`; what follows
# after `--` is for cargo-mutants, for example `-- --shard 0/4 --sharding round-robin` for a sample.
#
# Fails if less than 95 of 100 are noticed. tests/mutants.txt names those that are known to be missed, and why.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-mutants >/dev/null || { echo "SKIPPED: cargo-mutants is not installed (cargo install cargo-mutants)" >&2; exit; }

folders=()
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do folders+=("${1%/}"); shift; done
[ "${1:-}" != -- ] || shift
[ "${#folders[@]}" -gt 0 ] || folders=(src/server/poll src/server/close src/server/queue src/admit)

known=$PWD/tests/mutants.txt
results=$PWD/target/mutants
copy=$results/tree
mkdir -p "$results"
rm -rf "$copy"
mkdir "$copy"
git ls-files -z Cargo.toml Cargo.lock README.md docs src crates | xargs -0 cp --parents -t "$copy"
# The tests and the examples do not build without the program, and cargo-mutants would build them for each fault.
sed -i -e 's/^members = .*/members = [".", "crates\/*"]/' -e '/^\[\[example\]\]/,/^$/d' -e '/^\[\[bin\]\]/,/^$/d' "$copy/Cargo.toml"
rm "$copy/src/main.rs"

export CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 CARGO_TARGET_DIR=$results/target
unset RUSTC_WRAPPER
status=0
for folder in "${folders[@]}"; do
    module=${folder#src/}
    out=$results/${module//\//-}
    mkdir -p "$out"
    # The last words of a connection that speaks TLS are sealed.
    features=()
    [ "$folder" != src/server/close ] || features=(--cargo-arg=--features=tls)
    code=0
    # The simulator of the queue takes half a minute, and what it alone would notice is not a unit's fault; nor is a fault
    # in a test, which cargo-mutants makes where the module of the tests has more than one condition.
    (cd "$copy" && cargo mutants --in-place --baseline skip --timeout 30 --no-times \
        --file "$folder/**" --exclude-re tests:: --output "$out" --cargo-arg=--no-default-features "${features[@]}" --cargo-arg=--lib \
        "$@" -- -- "${module%%/*}::" --skip simulate) || code=$?
    # 2: some were missed; 3: some never ended.
    case $code in 0 | 2 | 3) ;; *) exit "$code" ;; esac
    count() { cat "${@/#/$out/mutants.out/}" | wc -l; }
    caught=$(count caught.txt timeout.txt) missed=$(count missed.txt)
    echo "tests/mutants.sh: $folder: $caught of $((caught + missed)) noticed; missed and not in tests/mutants.txt:"
    # Lines move, so a fault is known by its file and its words.
    sed 's/:[0-9]*:[0-9]*: /: /' "$out/mutants.out/missed.txt" | grep -vxFf <(sed -n 's/ *#.*//; s/^\(src.*\)$/\1/p' "$known") || echo "  none"
    [ $((caught * 100)) -ge $(((caught + missed) * 95)) ] || status=1
done
exit "$status"
