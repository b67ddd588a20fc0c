#!/bin/sh
# Which of the things that pip cannot install are missing here? As root on Debian or Ubuntu this
# installs them; anywhere else, or when that fails, it says what is missing and goes on: what needs
# a missing thing fails later with its own message.
#
# usage: tools/system_packages.sh PACKAGE...   of python3-venv, dataset-fashion-mnist, chromium
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

present() {
    case $1 in
        python3-venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
        dataset-fashion-mnist) images_are_somewhere ;;
        chromium)
            [ -n "${NINLAB_CHROMIUM:-}" ] || command -v chromium || command -v chromium-browser ||
                command -v google-chrome || command -v google-chrome-stable ;;
        *) echo "$0: unknown package $1" >&2; exit 2 ;;
    esac >/dev/null
}

# ninlab says so itself. A folder that it refuses, with exit code 2, is no want of a package.
images_are_somewhere() {
    python=${PYTHON:-$root/.venv/bin/python}
    command -v "$python" || python=python3
    code=0
    PYTHONPATH=$root "$python" -m ninlab.data_files --find 2>/dev/null || code=$?
    [ "$code" = 0 ] || [ "$code" = 2 ]
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

remedy="on Debian: apt-get install"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing"
    apt-get update -qq || true  # an older list of packages may do
    for package in $missing; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" ||
            true  # said below
    done
    remedy="this did not install it: apt-get install"
fi
for package in $missing; do
    present "$package" ||
        echo "missing: $package ($(what_for "$package")); $remedy $package" >&2
done
