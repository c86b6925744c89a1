#!/usr/bin/env bash
# Runs the unit tests under the address and the thread sanitizer, where a nightly toolchain is installed. Says what it
# skips, and why.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
skip() {
    echo "SKIPPED: $1" >&2
}
if ! rustc +nightly --version >/dev/null 2>&1; then
    skip "the sanitizers, which need a nightly toolchain"
    exit
fi

suppressed=$(mktemp)
trap 'rm -f "$suppressed"' EXIT
# The server that the admin endpoint talks to is left to the end of the process on purpose: see src/admin/link.rs.
echo "leak:tiny_http" >"$suppressed"
LSAN_OPTIONS="suppressions=$suppressed" RUSTFLAGS="-Zsanitizer=address" \
    cargo +nightly test --workspace --exclude tidegate-model --lib --target "$target" --target-dir target/sanitize/address \
    -- --skip simulate::

# Where the standard library is not built with it too, the thread sanitizer sees races in every hand-over.
if [ -f "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    RUSTFLAGS="-Zsanitizer=thread" TSAN_OPTIONS="halt_on_error=1" cargo +nightly test --workspace --exclude tidegate-model \
        --lib -Zbuild-std --target "$target" --target-dir target/sanitize/thread -- --skip simulate::
else
    skip "the thread sanitizer, which needs the nightly toolchain's rust-src"
fi
# Nothing in it is unsafe, and nothing is shared: it would take two minutes of the three.
skip "the simulator of the queue under the sanitizers: it is one thread of safe code"
# The model's threads are coroutines, whose stacks the address sanitizer does not know: it says that false reports may
# follow, and the model takes more than five minutes there instead of a quarter of one.
skip "the model under the sanitizers: its threads are coroutines, and loom checks its memory accesses itself"
