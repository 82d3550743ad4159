#!/usr/bin/env bash
# What a stay on a GPU is good for once scripts/train_on_gpu.sh has trained there: trains on from that run, teaches a
# student of few steps, trains what the model is compared with, tests and measures. Every part has its own limit, and what one leaves is in OUT before the next.
#
#   TRAIN="<as for the run before>" scripts/more_on_gpu.sh
#
# Settings, with their defaults; a part whose number is 0 is left out:
#   WORK=runs/gpu OUT=out/gpu DEVICE=cuda LOADERS=14 PYTHON=python3      as for train_on_gpu.sh
#   MINUTES=2           of the run WORK/second, from the weights of WORK/first on the same samples. Give --learning-rate,
#                       --warmup-steps and --encoder-share of its own in TRAIN: the last of two counts
#   STUDENT=250         steps of the student, of the newest checkpoint
#   BATCH=512           scenes per step of the student and of the compared trainings
#   STUDENT_STEPS=1     denoising steps that it takes; 2 of 4 are the other choice
#   COMPARE=0           seconds for each of five trainings from random weights, on the same samples in the same order: the
#                       small model and its four baselines; 90 and what loading takes fill one call of ten minutes
#   TEST=60             seconds for the test that needs a GPU; pytest must be there
#   BENCH=90            seconds for momap bench --network
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WORK="${WORK:-runs/gpu}" OUT="${OUT:-out/gpu}" DEVICE="${DEVICE:-cuda}" LOADERS="${LOADERS:-14}"
readonly PYTHON="${PYTHON:-python3}" MINUTES="${MINUTES:-2}"
readonly STUDENT="${STUDENT:-250}" BATCH="${BATCH:-512}" STUDENT_STEPS="${STUDENT_STEPS:-1}"
readonly TEST="${TEST:-60}" BENCH="${BENCH:-90}" COMPARE="${COMPARE:-0}"
if [[ "$MINUTES" != 0 ]]; then : "${TRAIN:?expected the options of the run before, as train_on_gpu.sh was given them}"; fi
export OMP_NUM_THREADS=1
mkdir -p "$OUT"

momap() { "$PYTHON" -m momap_ros.cli "$@"; }

leave() { # name, checkpoint folder, log
    tar c -C "$2/.." "$(basename "$2")" | split --bytes=15M --numeric-suffixes - "$OUT/$1.tar."
    cp "$3" "$OUT/$1.csv"
}

train_on() {
    # shellcheck disable=SC2086
    momap train small --data "$WORK/prepared" --out "$WORK/second" --workers 1 --device "$DEVICE" --loaders "$LOADERS" \
        --minutes "$MINUTES" --start-from "$WORK/first" --grows $TRAIN
    momap train export --run "$WORK/second" --data "$WORK/prepared" --manifest "$WORK/prepared/manifest.json" \
        --out "$WORK/second/checkpoint"
    leave second "$WORK/second/checkpoint" "$WORK/second/log.csv"
}

teach() {
    local newest="$WORK/first/checkpoint"
    if [[ -d "$WORK/second/checkpoint" ]]; then newest="$WORK/second/checkpoint"; fi
    momap train distill --teacher "$newest" --data "$WORK/prepared" --out "$WORK/student" --steps "$STUDENT" \
        --student-steps "$STUDENT_STEPS" --batch-size "$BATCH" --device "$DEVICE" --loaders "$LOADERS"
    leave student "$WORK/student/checkpoint" "$WORK/student/log.csv"
}

compare() {
    local kind out what
    for kind in small momap-vae general-flow-original general-flow-rollout general-flow-extend; do
        out="$WORK/compare/$kind"
        what=(baseline --kind "$kind")
        if [[ "$kind" == small ]]; then what=(small); fi
        momap train "${what[@]}" --data "$WORK/prepared" --out "$out" --workers 1 --device "$DEVICE" \
            --loaders "$LOADERS" --grows --batch-size "$BATCH" --learning-rate 1e-3 --warmup-steps 100 \
            --minutes "$("$PYTHON" -c "print($COMPARE / 60)")"
        if [[ "$kind" == small ]]; then
            momap train export --run "$out" --data "$WORK/prepared" --manifest "$WORK/prepared/manifest.json" \
                --out "$out/checkpoint"
        fi
        leave "compare-$kind" "$out/checkpoint" "$out/log.csv"
    done
}

test_it() { timeout "$TEST" "$PYTHON" -m pytest -q -m gpu test/model/test_device.py | tee "$OUT/test.txt"; }

measure() { # it writes anew after every way; the faster ones come first
    timeout "$BENCH" "$PYTHON" -m momap_ros.cli bench --out "$OUT/bench" --device "$DEVICE" \
        --network float32 bfloat16 cuda_graphs compiled_bfloat16
}

failed=()
try() { # whether it is wanted, part
    local begun="$SECONDS" status
    if [[ "$1" == 0 ]]; then return; fi
    set +e # which a condition would switch off inside of the part too
    (
        set -e
        "$2"
    )
    status=$?
    set -e
    if ((status)); then failed+=("$2"); fi
    echo "more_on_gpu: $2 took $((SECONDS - begun)) s"
}

try "$MINUTES" train_on
try "$TEST" test_it
try "$STUDENT" teach
try "$COMPARE" compare
try "$BENCH" measure
if ((${#failed[@]})); then
    echo "more_on_gpu: expected every part to end well, got failures or no time left in: ${failed[*]}" >&2
    exit 1
fi
