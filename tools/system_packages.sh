#!/bin/sh
# Which of the things that pip cannot install are missing here? As root on Debian or Ubuntu this
# installs them; anywhere else it says what to install, and goes on: what needs a missing thing
# fails later with its own message.
#
# usage: tools/system_packages.sh PACKAGE...   of python3-venv, dataset-fashion-mnist, chromium
set -eu

present() {
    case $1 in
        python3-venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
        dataset-fashion-mnist)
            [ -n "${NINLAB_DATA:-}" ] || [ -e /usr/share/datasets/fashion-mnist ] ;;
        chromium)
            [ -n "${NINLAB_CHROMIUM:-}" ] || command -v chromium || command -v chromium-browser ||
                command -v google-chrome || command -v google-chrome-stable ;;
        *) echo "$0: unknown package $1" >&2; exit 2 ;;
    esac >/dev/null
}

what_for() {
    case $1 in
        python3-venv) echo "to create .venv" ;;
        dataset-fashion-mnist) echo "the images; without it they are downloaded once" ;;
        chromium) echo "to look at the built pages; or name another Chromium in NINLAB_CHROMIUM" ;;
    esac
}

missing=
for package in "$@"; do
    present "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
    for package in $missing; do
        echo "missing: $package ($(what_for "$package")); on Debian: apt-get install $package" >&2
    done
fi
