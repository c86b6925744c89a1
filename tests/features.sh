#!/usr/bin/env bash
# Checks the library with each of its features alone, with none, and the program without TLS; warnings are errors.
set -euo pipefail
cd "$(dirname "$0")/.."

library() { # FEATURE...
    echo "tests/features.sh: the library with features: ${*:-none}"
    cargo clippy -q --lib --no-default-features --features "$*" -- -D warnings
}

library
for feature in $(sed -n '/^\[features\]/,/^\[dep/s/^\([a-z]*\) = .*/\1/p' Cargo.toml); do
    [ "$feature" = default ] || library "$feature"
done
library metrics tls
echo "tests/features.sh: the program without TLS"
cargo clippy -q --bins --no-default-features --features cli -- -D warnings
# The unit tests too: `tests/mutants.sh` and Miri run them without the rest.
cargo clippy -q --lib --profile test --no-default-features -- -D warnings
