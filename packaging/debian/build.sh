#!/usr/bin/env bash
# Makes a Debian package of the program: `packaging/debian/build.sh FOLDER [PROGRAM]`. The package comes to FOLDER, and
# its path is the last line that is printed. Without PROGRAM, the release is built.
set -euo pipefail
folder=$(realpath -m "${1:?the folder that the package comes to}")
program=$(realpath "${2:-/dev/null}")
cd "$(dirname "$0")/../.."
if [ "${2:-}" = "" ]; then
    cargo build --release --bin tidegate >&2
    program=$PWD/${CARGO_TARGET_DIR:-target}/release/tidegate
fi

version=$("$program" --version | cut -d' ' -f2)
architecture=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# mktemp's own mode would be that of the root of the package.
chmod 755 "$root"

install -D -m 755 "$program" "$root/usr/bin/tidegate"
strip --strip-unneeded "$root/usr/bin/tidegate" 2>/dev/null || true
install -D -m 644 packaging/tidegate.toml "$root/etc/tidegate/tidegate.toml"
for unit in tidegate.service tidegate.socket; do
    install -D -m 644 "packaging/systemd/$unit" "$root/lib/systemd/system/$unit"
done

mkdir -p "$root/usr/share/man/man1"
"$program" man --dir "$root/usr/share/man/man1" >&2
gzip -9n "$root"/usr/share/man/man1/*.1
mkdir -p "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
    "$root/usr/share/fish/vendor_completions.d"
"$program" completions bash >"$root/usr/share/bash-completion/completions/tidegate"
"$program" completions zsh >"$root/usr/share/zsh/vendor-completions/_tidegate"
"$program" completions fish >"$root/usr/share/fish/vendor_completions.d/tidegate.fish"

doc=$root/usr/share/doc/tidegate
mkdir -p "$doc"
install -m 644 README.md docs/live.md docs/tuning.md docs/gate.md "$doc/"
{
    echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
    echo 'Upstream-Name: tidegate'
    echo
    echo 'Files: *'
    echo 'Copyright: the tidegate contributors'
    echo 'License: MIT or Apache-2.0'
    sed 's/^$/./; s/^/ /' LICENSE-MIT
    echo ' .'
    echo ' On Debian systems the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0.'
} >"$doc/copyright"
printf 'tidegate (%s) unstable; urgency=medium\n\n  * Version %s.\n\n -- tidegate contributors <tidegate@localhost>  %s\n' \
    "$version" "$version" "$(date -R -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}")" | gzip -9n >"$doc/changelog.gz"

mkdir -p "$root/DEBIAN"
# What it is linked with, and nothing else: a C library as new as the one of this machine.
libc=$(dpkg-query -W -f '${Version}' libc6 2>/dev/null | cut -d- -f1)
size=$(du -sk --exclude=DEBIAN "$root" | cut -f1)
cat >"$root/DEBIAN/control" <<CONTROL
Package: tidegate
Version: $version
Architecture: $architecture
Maintainer: tidegate contributors <tidegate@localhost>
Installed-Size: $size
Depends: libc6 (>= ${libc:-2.31}), libgcc-s1, adduser
Section: net
Priority: optional
Description: bounded server and gate that stays up when the load does not stop
 Tidegate serves TCP and UDP services with a fixed number of threads, and stands as
 a gate in front of services that others wrote. Every resource has a limit that is
 chosen up front; what exceeds a limit is refused quickly, and what was admitted
 is finished. It brings its own load generator.
CONTROL
echo /etc/tidegate/tidegate.toml >"$root/DEBIAN/conffiles"
install -m 755 packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$root/DEBIAN/"
(cd "$root" && find usr lib etc -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

mkdir -p "$folder"
package=$folder/tidegate_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >&2
echo "$package"
