#!/usr/bin/env bash
# shellcheck disable=SC2329  # parts are called by the names that the reader gives
started=$(date +%s)
# Measures on a GPU machine without a network what the book wants measured there. Lies in a kit that
# tools/gpu_kit.py packed. CONTRIBUTING.md, "Measured runs", says how to use it.
#
# usage: bash on_gpu.sh RESULTS SECONDS PART[:SECONDS]...
#
# Takes the parts in order, each for the seconds after its colon at most, and ends within SECONDS.
# After every run and every part all that is new is in RESULTS: records.tar.gz, kept weights, and
# log.txt, to which each call appends. A second call goes on where the one before it ended, on a new
# machine too, if RESULTS is the same or the kit was packed after it had come home.
#
#   A part takes 5 s or more, and is one of
#   smoke       what decides whether and how to record, in seconds; give it first
#   workspaces  what cuDNN answers on the device for every convolution, the most wanted first
#   fused       steps by fused operators beside torch's: whether they compute the same, and how fast
#   record      the full plan, in its order
#   memory      peaks and step times beside the prediction, the most wanted cases first
#   more        the same for the other batch sizes, optimizers and the other allocator
#   strangers   the same for networks of torchvision
#   profile     the operators of a step that take longest, and their shares of the data sheet's rates
#   selfcheck   every path that only a GPU takes
#   tests       tests/gpu: is a captured step a called one, do predictions hold?
#   loader      the training loop beside one with a DataLoader
#
# PYTHON is the interpreter with torch. DEVICE=cpu rehearses every part in a small form. PLAN is
# what record makes. WORK is the folder of the checkout. ANY_GPU=1 records although the kit holds
# records of another GPU, which the new ones never join.
#
# Exit codes: 0 done, or cut; 1 a part failed and the rest went on; 2 bad usage or a kit that cannot
# be unpacked; 3 nothing can be recorded; 5 the device is lost; 6 another GPU's records.
set -uo pipefail

usage() { sed -n 's/^# usage: /usage: /p; s/^#   /  /p' "$0" >&2; exit 2; }

[ $# -ge 3 ] && [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || usage
names='smoke|workspaces|fused|record|memory|more|strangers|profile|selfcheck|tests|loader'
for part in "${@:3}"; do
    [[ $part =~ ^($names)(:([5-9]|[1-9][0-9]{1,6}))?$ ]] || usage
done
kit=$(cd "$(dirname "$0")" && pwd)
results=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
deadline=$((started + $2))
shift 2
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
commit=$(cat "$kit/commit") || exit 2
work=${WORK:-${HOME:-/tmp}/ninlab-${commit:0:12}}
eager=()    # becomes --eager when the smoke finds that graphs fail
any_gpu=()  # becomes --any-gpu when records of another GPU are welcome
[ "${ANY_GPU:-}" != 1 ] || any_gpu=(--any-gpu)
ended=0   # the exit code
child=''  # the process that is waited for

# ---------------------------------------------------------------- time

now() { date +%s; }

within() {  # within COMMAND...: its exit code; 124 or 137 when the part's time is over before it
    local seconds=$((ends - $(now)))
    [ "$seconds" -gt 0 ] || return 124
    echo "== $*"
    timeout --kill-after=4 "$seconds" "$@" </dev/null &
    child=$!
    wait "$child"
    local code=$?
    child=''
    # A process that others killed has the same code as one that was cut: it gets one of its own.
    if [ "$code" = 137 ] && [ "$(now)" -lt "$ends" ]; then code=9; fi
    return "$code"
}

was_cut() { [ "$1" = 124 ] || [ "$1" = 137 ]; }

# ---------------------------------------------------------------- the checkout

unpack() {
    export PYTHONPATH=$work/ninlab:$work/site${PYTHONPATH:+:$PYTHONPATH} NINLAB_DATA=$kit/images
    export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
    command -v addr2line >/dev/null || export TORCH_SYMBOLIZE_MODE=dladdr
    if [ ! -d "$work" ]; then  # under another name first: a torn one would be in the way
        rm -rf "$work".*.part
        local torn=$work.$$.part
        mkdir -p "$torn/ninlab" "$torn/site" "$torn/git/templates" || return 1
        tar -xzf "$kit/site.tar.gz" -C "$torn/site" --no-same-owner || return 1
        [ ! -e "$kit/git.tar.gz" ] || tar -xzf "$kit/git.tar.gz" -C "$torn/git" --no-same-owner
        tar -xf "$kit/repository.tar" -C "$torn/ninlab" --no-same-owner || return 1
        use_git "$torn/git"
        git -C "$torn/ninlab" checkout --quiet HEAD || return 1
        mv -T "$torn" "$work" || return 1
    fi
    use_git "$work/git"
    cd "$work/ninlab" || return 1
    if [ "$(git rev-parse HEAD)" != "$commit" ]; then
        echo "$work holds another commit than the kit; remove it or name another WORK"
        return 1
    fi
    mkdir -p runs/probes
    # What came before this machine would be done again. What RESULTS has is never older.
    "$python" -m ninlab.handover --take-up runs "$results"
    "$python" -m ninlab.handover --take-up runs "$kit"
    return 0
}

use_git() {  # use_git FOLDER: the kit's git, unpacked there, where the machine has none
    if [ -z "${own_git:-}" ]; then
        command -v git >/dev/null && return
        own_git=yes
    fi
    # A wrapper, because no other program should meet the kit's libraries.
    mkdir -p "$1/bin"
    printf '#!/bin/sh\nexec env LD_LIBRARY_PATH="%s" "%s/git" "$@"\n' "$1" "$1" >"$1/bin/git"
    chmod +x "$1/bin/git"
    export PATH=$1/bin:$PATH GIT_EXEC_PATH=$1 GIT_TEMPLATE_DIR=$1/templates
    hash -r
}

hand_over() {
    [ ! -d "$work/ninlab/runs" ] || "$python" -m ninlab.handover "$work/ninlab/runs" "$results"
}

# ---------------------------------------------------------------- parts

measure() {
    within "$python" -m ninlab measure --device "$device" --deadline "$((ends - 3))" \
        --results "$results" --events runs/probes/events --threads "$threads" --timed-steps 10 "$@"
}
profiled() {
    within "$python" -m ninlab profile --device "$device" --results "$results" \
        --threads "$threads" "$@"
}
tests() {  # without the project's options, whose plugins are not there
    within "$python" -m pytest -c /dev/null --rootdir=. -p no:cacheprovider -W ignore -q tests/gpu
}
check() {
    within "$python" -m ninlab selfcheck --device "$device" ${any_gpu[@]+"${any_gpu[@]}"} "$@"
}

smoke() {
    check --decisive --report "$results/selfcheck.json"
    local code=$?
    case $code in
        3) stop 3 'nothing can be recorded here: see the lines above' ;;
        4) eager=(--eager) && echo '== graphs fail here: runs are recorded without them' ;;
        6) stop 6 "the kit holds another GPU's records; ANY_GPU=1 records all the same" ;;
        *) return "$code" ;;
    esac
}
selfcheck() { check --report "$results/selfcheck-whole.json"; }

records_there() { find runs -name '*.json' | wc -l; }

record() {  # started again when a run or others ended the process, while that leads somewhere
    local code before new starts=0 barren=0 lost=no
    while true; do
        before=$(records_there)
        starts=$((starts + 1))
        within "$python" -m ninlab record --plan "$plan" --device "$device" --threads "$threads" \
            --deadline "$((ends - 3))" --results "$results" ${eager[@]+"${eager[@]}"}
        code=$?
        hand_over
        new=$(($(records_there) - before))
        case $code in 0 | 2 | 124 | 137) return "$code" ;; esac
        if [ "$new" -gt 0 ]; then barren=0; else barren=$((barren + 1)); fi
        if [ "$code" = 5 ]; then
            [ "$lost" = no ] || [ "$new" -gt 0 ] || stop 5 'the device is lost'
            lost=yes
        fi
        if [ "$starts" = 5 ] || [ "$barren" = 2 ]; then return "$code"; fi
        [ "$((ends - $(now)))" -gt 20 ] || return "$code"
        if [ "$code" = 9 ]; then
            echo "== record was killed after $new new records; started again"
        else
            echo "== record ended with $code after $new new records; it goes on behind that run"
        fi
    done
}

workspaces() {
    within "$python" -m tools.ask_cudnn runs/probes --device "$device" --deadline "$((ends - 3))" \
        --results "$results"
}

fused() {
    within "$python" benchmarks/fused_step.py --device "$device" --deadline "$((ends - 3))" \
        --output runs/probes/fused_step.jsonl
}

strangers() {
    within "$python" benchmarks/strangers.py --device "$device" --deadline "$((ends - 3))" \
        --results "$results" --threads "$threads" --events runs/probes/strangers runs/probes
}

if [ "$device" = cpu ]; then  # small forms: what is rehearsed is the way, not the figures
    plan=${PLAN:-rehearsal} threads=1
    memory() { measure nin_28 --batch-size 8 --precision fp32 --mode sgd; }
    more() { measure nin_28 --batch-size 1 --precision fp32 --mode adam --mode momentum; }
    profile() {
        profiled nin_28 --precision fp32 --batch-size 8 --steps 3
    }
    loader() {
        within "$python" benchmarks/input_pipeline.py --device cpu --workers 0 \
            --seconds-a-turn 0.3 --turns 1 nin_28@28
    }
else
    plan=${PLAN:-full} threads=4
    networks=(nin alexnet vgg11_quarter vgg11 googlenet lenet)
    memory() {
        measure "${networks[@]}" --batch-size 128 --precision bf16 --precision tf32 --mode sgd \
            --mode inference --properties runs/probes/cudnn_device.json
    }
    more() {
        local code=0
        measure "${networks[@]}" --batch-size 16 --precision tf32 --mode sgd --mode inference \
            --allocator default || code=$?
        measure "${networks[@]}" --batch-size 128 --precision tf32 --mode adam --mode momentum \
            --allocator default || code=$?
        measure "${networks[@]}" --batch-size 1 --precision tf32 --mode sgd \
            --allocator default || code=$?
        return "$code"
    }
    profile() {  # each kernels' in processes of their own: a lost device stays lost to its process
        local code=0 kernels
        for kernels in torch fused; do
            profiled nin --precision bf16 --kernels "$kernels" || code=$?
        done
        for kernels in torch fused; do
            profiled alexnet vgg11_quarter googlenet --precision bf16 --kernels "$kernels" || code=$?
        done
        return "$code"
    }
    loader() {
        local code=0
        within "$python" benchmarks/input_pipeline.py --device "$device" --workers 0 \
            --seconds-a-turn 0.3 --turns 3 nin_28@28 || code=$?
        within "$python" benchmarks/input_pipeline.py --device "$device" --workers 0 4 \
            --seconds-a-turn 0.5 --turns 3 nin@224 || code=$?
        return "$code"
    }
fi

cap_of() {  # seconds that a part takes at most when the call names none
    case $1 in
        profile) echo 60 ;;
        smoke | fused) echo 90 ;;
        selfcheck | strangers | loader) echo 180 ;;
        memory | workspaces) echo 240 ;;
        more) echo 350 ;;
        tests) echo 440 ;;
        *) echo 1000000 ;;
    esac
}

# ---------------------------------------------------------------- the call

stop() {  # stop CODE SENTENCE: end everything
    echo "== stopped: $2"
    exit "$1"
}

interrupted() {
    [ -z "$child" ] || kill "$child" 2>/dev/null
    exit "$1"
}

leave() {  # leave CODE: whatever ends the call, what is new is handed over and the log is complete
    hand_over
    echo "== ended with $1, $((deadline - $(now))) s left"
    exec >&- 2>&-
    for _ in {1..20}; do  # a process that was left behind may hold the log open
        kill -0 "$log" 2>/dev/null || break
        sleep 0.1
    done
    exit "$1"
}

take() {  # take PART[:SECONDS]
    local part=${1%%:*} cap cut code last=$((deadline - 8)) began
    began=$(now)
    cap=$(cap_of "$part")
    [ "$part" = "$1" ] || cap=${1#*:}
    ends=$((began + cap))
    cut="cut at its cap of $cap s"
    if [ "$ends" -gt "$last" ]; then
        ends=$last
        cut="cut by the end of the call, after $((last - began)) s"
    fi
    if [ "$((ends - began))" -lt 5 ]; then
        echo "== no time for $part"
        return
    fi
    "$part"
    code=$?
    if was_cut "$code"; then
        echo "== $part $cut"
    else
        echo "== $part ended with $code after $(($(now) - began)) s"
        [ "$code" = 0 ] || ended=1
    fi
    hand_over
    echo "== $((deadline - $(now))) s left"
}

exec > >(tee -ia "$results/log.txt") 2>&1
log=$!
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'leave "$?"' EXIT
echo "== on_gpu.sh $*, $((deadline - started)) s, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
unpack || stop 2 'the kit could not be unpacked: see the lines above'
git log -1 --format='%H %s'
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,power.limit,memory.total --format=csv,noheader
fi
for part in "$@"; do take "$part"; done
exit "$ended"
