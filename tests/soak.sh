#!/usr/bin/env bash
# Everything hostile at random, for a number of minutes: `tests/soak.sh 60`. The result is in target/figures/, from where docs/reliability.md takes it; TIDEGATE_SOAK_SEED
# repeats the order of events.
set -euo pipefail
cd "$(dirname "$0")/.."
ulimit -n "$(ulimit -Hn)"
TIDEGATE_SOAK=${1:?for how many minutes} exec cargo test --profile checked --test soak -- --nocapture
