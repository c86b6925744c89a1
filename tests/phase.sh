# For scripts: `phase NAME COMMAND...` runs the command and adds how long it took to the file that TIDEGATE_PHASES names.
phase() {
    local name=$1 began=$SECONDS
    shift
    echo "== $name"
    "$@"
    printf '%5d s  %s\n' "$((SECONDS - began))" "$name" >>"${TIDEGATE_PHASES:-/dev/null}"
}
