#!/usr/bin/env bash
# Measures on a GPU machine without a network what the book wants measured there. Lies in a kit that
# tools/gpu_kit.py packed.
#
# usage: bash on_gpu.sh RESULTS SECONDS PART...
#
# Takes the parts in order and stops within SECONDS. What is recorded by then is in RESULTS, with a
# log: `cat RESULTS/records.tar.gz.* | tar xz` in the repository brings it home; commit it, or pack
# the kit again and go on with another call. Parts:
#
#   check       does a captured step do what a called one does? (tests/gpu, first half)
#   profile     seconds a step, shares of the data sheet's rates, the operators that take longest
#   memory      peaks and step times beside the prediction, the most wanted cases first
#   more        the same for the other batch sizes, optimizers and the other allocator
#   laws        are the predictions within their tolerances? (tests/gpu, second half)
#   loader      the training loop beside one with a DataLoader
#   record      the full plan, in its order, for all the time that is left
#
# PYTHON is the interpreter with torch, DEVICE may name another device: cpu rehearses everything.
set -uo pipefail

usage() { sed -n 's/^# usage: /usage: /p; s/^#   /  /p' "$0" >&2; exit 2; }

[ $# -ge 3 ] || usage
for part in "${@:3}"; do
    case $part in check | profile | memory | more | laws | loader | record) ;; *) usage ;; esac
done
kit=$(cd "$(dirname "$0")" && pwd)
results=$(mkdir -p "$1" && cd "$1" && pwd)
limit=$2
shift 2
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
work=$(mktemp -d)

left() { echo $((limit - SECONDS)); }

within() {  # within CAP COMMAND...: the command, for CAP seconds at most and not beyond the limit
    local cap=$(($1 < $(left) - 15 ? $1 : $(left) - 15))
    shift
    echo "== $* ($cap s)"
    [ "$cap" -gt 0 ] && timeout --kill-after=5 "$cap" "$@" 2>&1
}

keep() {  # what the parts recorded, in parts of 15 MB
    git ls-files -z --others --exclude-standard runs | tar -czf - --null -T - |
        split -b 15M -d - "$results/records.tar.gz."
    rm -rf "$work"
}

unpack() {
    export PYTHONPATH=$work/ninlab:$kit/site NINLAB_DATA=$kit/images
    export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=4
    if ! command -v git >/dev/null; then
        for package in "$kit"/git/*.deb; do dpkg -x "$package" "$work/git"; done
        local root=$work/git/usr
        export PATH=$root/bin:$PATH GIT_EXEC_PATH=$root/lib/git-core GIT_TEMPLATE_DIR=$work
        export LD_LIBRARY_PATH=$root/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}
    fi
    command -v addr2line >/dev/null || export TORCH_SYMBOLIZE_MODE=dladdr
    git -c advice.detachedHead=false clone --quiet "$kit/ninlab.bundle" "$work/ninlab" || exit 1
    cd "$work/ninlab" || exit 1
    tar -xzf "$kit/records.tar.gz"
    mkdir -p runs/probes
    rm -f "$results"/records.tar.gz.*  # of a call before this one
    trap keep EXIT
}

tests() {  # without the project's options, whose plugins are not there
    within "$1" "$python" -m pytest -c /dev/null --rootdir=. -p no:cacheprovider -W ignore -q \
        "${@:2}"
}
measure() {
    within "$1" "$python" -m ninlab measure --device "$device" nin alexnet vgg11_quarter vgg11 \
        googlenet lenet "${@:2}"
}

check() { tests 200 -x tests/gpu/test_graph.py; }
profile() {
    within 150 "$python" benchmarks/training_step.py --device "$device" \
        --output runs/probes/training_step.json
}
memory() {
    measure 240 --batch-size 128 --precision bf16 --precision tf32 --mode sgd --mode inference \
        --properties runs/probes/cudnn_device.json
}
more() {
    measure 150 --batch-size 16 --precision tf32 --mode sgd --mode inference --allocator default
    measure 100 --batch-size 128 --precision tf32 --mode adam --mode momentum --allocator default
    measure 100 --batch-size 1 --precision tf32 --mode sgd --allocator default
}
laws() { tests 240 tests/gpu/test_memory.py; }
loader() {
    within 60 "$python" benchmarks/input_pipeline.py --device "$device" --workers 0 \
        --seconds-a-turn 0.3 --turns 3 nin_28@28
    within 100 "$python" benchmarks/input_pipeline.py --device "$device" --workers 0 4 \
        --seconds-a-turn 0.5 --turns 3 nin@224
}
record() {
    within "$(left)" "$python" -m ninlab record --plan full --device "$device" \
        --budget-seconds $(($(left) - 30))
}

unpack
{
    git log -1 --format='%H %s'
    command -v nvidia-smi >/dev/null &&
        nvidia-smi --query-gpu=name,driver_version,power.limit,memory.total --format=csv,noheader
    for part in "$@"; do "$part"; done
    "$python" -m ninlab runs --validate | tail -3
    echo "== $SECONDS s"
} 2>&1 | tee "$results/log.txt"
