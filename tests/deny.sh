#!/usr/bin/env bash
# Checks what the project depends on against deny.toml: licences, banned and doubled crates, and where they come from.
# Installs cargo-deny where it is missing: two minutes on two processors, once for a machine.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo deny --version >/dev/null 2>&1; then
    echo "tests/deny.sh: cargo-deny is missing; cargo installs it"
    # It only reads a few files: it need not be fast, and without optimization it is built in a quarter of the time.
    if ! CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-deny --locked --debug --quiet; then
        echo "SKIPPED: cargo deny check bans licenses sources, since cargo-deny could not be installed (above)" >&2
        # On purpose no success where nobody would read it.
        [ "${CI:-}" != true ]
        exit
    fi
fi
cargo deny --workspace --locked check bans licenses sources
