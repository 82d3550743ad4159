#!/usr/bin/env bash
# Trains the small model during a short stay on a machine with a GPU, where nothing is but this repository: all cores
# simulate first, then some of them simulate on while the GPU trains as many steps as fit.
#
#   scripts/train_on_gpu.sh          one stay; what it leaves in OUT is a checkpoint, its log and the data's manifest
#
# Called again with the same WORK it goes on: with the run, if that was cut off; else NAME=second (say) trains another
# on all that was simulated meanwhile. On another machine, START=<checkpoint folder of an earlier stay> and FIRST=<an
# episode that it had not> go on from there. Settings, with their defaults:
#   WORK=runs/gpu       shards, prepared arrays and runs
#   OUT=out/gpu         results, every file under 15 MiB: cat OUT/checkpoint.tar.* | tar x, cat OUT/state.pt.* > state.pt
#   STATE=yes           whether state.pt is among them: 16 times as large as the checkpoint
#   NAME=first          of the run
#   MINUTES=9           of this call
#   FIRST=0             episode to begin with
#   SIMULATE=110        seconds for the first samples, with all cores
#   SIMULATORS=5        cores that simulate while the GPU trains; 0: none
#   LOADERS=9           cores that draw batches
#   VALIDATION=200      episodes of the validation split, to be looked at during training
#   START=              checkpoint folder whose weights, codec and words the run begins with; empty: random weights
#   DEVICE=cuda TRAIN="--compile --batch-size 512 --learning-rate 1e-3 --warmup-steps 300 --channels 128 256 \
#       --encoder-width 256 --encoder-layers 6"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WORK="${WORK:-runs/gpu}" OUT="${OUT:-out/gpu}" NAME="${NAME:-first}" MINUTES="${MINUTES:-9}"
readonly SIMULATE="${SIMULATE:-110}" SIMULATORS="${SIMULATORS:-5}" LOADERS="${LOADERS:-9}"
readonly FIRST="${FIRST:-0}" VALIDATION="${VALIDATION:-200}" START="${START:-}" STATE="${STATE:-yes}"
readonly DEVICE="${DEVICE:-cuda}" PYTHON="${PYTHON:-python3}" PER_SHARD=100 EPISODES=1000000
readonly TRAIN="${TRAIN:---compile --batch-size 512 --learning-rate 1e-3 --warmup-steps 300 --channels 128 256 \
    --encoder-width 256 --encoder-layers 6}"
readonly CORES="$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)))')" # nproc reads OMP_NUM_THREADS
export OMP_NUM_THREADS=1
mkdir -p "$WORK/prepared" "$OUT"

momap() { "$PYTHON" -m momap_ros.cli "$@"; }

simulate() { # split, first episode, episodes, cores
    momap simulate --split "$1" --first-episode "$2" --episodes "$3" --views 2 --size 128 --workers "$4" \
        --out "$WORK/shards"
}

# Whole shards stay when the time is up. Those behind a gap are dropped, and the manifest of the others is written.
close_shards() {
    local end=$FIRST first
    while [[ -f "$WORK/shards/$(printf 'train-%07d-%07d.tar' "$end" $((end + PER_SHARD)))" ]]; do
        end=$((end + PER_SHARD))
    done
    if ((end == FIRST)); then
        echo "train_on_gpu: expected a whole shard of $PER_SHARD episodes, got none in $SIMULATE s; raise SIMULATE" >&2
        exit 1
    fi
    for shard in "$WORK"/shards/train-*.tar; do
        first="$(basename "$shard" | cut -c7-13)"
        if ((10#$first >= end)); then rm -f "$shard" "${shard%.tar}.json"; fi
    done
    simulate train "$FIRST" $((end - FIRST)) 1
}

simulate_for() { # seconds, cores
    timeout --signal=TERM --kill-after=20 "$1" "$PYTHON" -m momap_ros.cli simulate --split train \
        --first-episode "$FIRST" --episodes "$EPISODES" --views 2 --size 128 --workers "$2" --out "$WORK/shards" || true
}

prepare() {
    if [[ -n "$START" && ! -d "$WORK/prepared/codec" ]]; then
        cp -r "$START/codec" "$WORK/prepared/"
        "$PYTHON" -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["vocabulary"]))' \
            < "$START/scene_encoder/config.json" > "$WORK/prepared/vocabulary.json"
    fi
    momap train prepare --data "$WORK/shards" --out "$WORK/prepared" --workers "$CORES" --keep-codec
}

if [[ ! -f "$WORK/simulated" ]]; then
    if ((VALIDATION > 0)); then simulate val 0 "$VALIDATION" "$CORES"; fi
    simulate_for "$SIMULATE" "$CORES"
    close_shards
    touch "$WORK/simulated"
fi
if [[ ! -f "$WORK/$NAME/state.pt" ]]; then # a run that was cut off goes on with the samples that it began with
    prepare
    cp "$WORK/shards/manifest.json" "$WORK/prepared/manifest.json"
fi

readonly LEFT=$((MINUTES * 60 - SECONDS - 25)) # saving and exporting take the rest
if ((SIMULATORS > 0)); then simulate_for "$LEFT" "$SIMULATORS" & fi
# shellcheck disable=SC2086
momap train small --data "$WORK/prepared" --out "$WORK/$NAME" --workers 1 --device "$DEVICE" --loaders "$LOADERS" \
    --minutes "$("$PYTHON" -c "print($LEFT / 60)")" ${START:+--start-from "$START"} $TRAIN
wait
if ((SIMULATORS > 0)); then close_shards; fi

momap train export --run "$WORK/$NAME" --data "$WORK/prepared" --manifest "$WORK/prepared/manifest.json" \
    --out "$WORK/$NAME/checkpoint"
for result in "$WORK/$NAME/log.csv" "$WORK/$NAME/validation.csv" "$WORK/$NAME/options.json" \
    "$WORK/prepared/manifest.json"; do
    if [[ -f "$result" ]]; then cp "$result" "$OUT/"; fi
done
tar c -C "$WORK/$NAME" checkpoint | split --bytes=15M --numeric-suffixes - "$OUT/checkpoint.tar."
if [[ "$STATE" == yes ]]; then
    split --bytes=15M --numeric-suffixes "$WORK/$NAME/state.pt" "$OUT/state.pt."
fi
