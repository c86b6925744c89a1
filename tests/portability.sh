#!/usr/bin/env bash
# Checks what the tests of one machine cannot: the oldest Rust that Cargo.toml promises, systems other than Linux, and
# Miri on the state word and the ledgers. Each part runs where its toolchain is installed; what was skipped is said at
# the end. Nothing is installed.
set -uo pipefail
cd "$(dirname "$0")/.."
done=() skipped=() failed=()
part() { # NAME COMMAND...
    local name=$1
    shift
    echo "tests/portability.sh: $name"
    if "$@"; then done+=("$name"); else failed+=("$name"); fi
}
toolchains=$(rustup toolchain list 2>/dev/null || true)

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
installed=$(grep -oE "^$oldest(\.[0-9]+)?-" <<<"$toolchains" | head -1)
if [ -n "$installed" ]; then
    part "Rust $oldest, everything but benchmark and model" \
        cargo "+${installed%-}" check --workspace --exclude tidegate-bench --exclude tidegate-model --all-targets --target-dir target/oldest
else
    skipped+=("Rust $oldest: rustup toolchain install $oldest")
fi

for target in x86_64-unknown-freebsd x86_64-apple-darwin aarch64-apple-darwin; do
    if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
        part "the library on $target" cargo check --lib --no-default-features --target "$target"
        # Without TLS, whose C files need a compiler for the target.
        part "the program on $target" cargo check --bins --no-default-features --features cli --target "$target"
    else
        skipped+=("$target: rustup target add $target")
    fi
done

if cargo +nightly miri --version >/dev/null 2>&1; then
    # They open no socket and no file.
    MIRIFLAGS="-Zmiri-strict-provenance" part "Miri on the state word and the ledgers" \
        cargo +nightly miri test --lib --no-default-features --target-dir target/miri -- state:: stats:: ledger:: meter::
else
    skipped+=("Miri: rustup component add miri --toolchain nightly")
fi

for name in "${done[@]}"; do echo "done: $name"; done
for name in "${skipped[@]}"; do echo "SKIPPED, with what it needs: $name"; done
for name in "${failed[@]}"; do echo "FAILED: $name" >&2; done
[ "${#failed[@]}" = 0 ]
