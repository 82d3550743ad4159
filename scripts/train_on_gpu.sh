#!/usr/bin/env bash
# Trains the small model during a short stay on a machine with a GPU, where nothing is but this repository: all cores
# simulate first, then some of them simulate on while the GPU trains as many steps as fit.
#
#   scripts/train_on_gpu.sh          one stay; what it leaves in OUT is a checkpoint, its log and the data's manifest
#
# Called again with the same WORK it goes on: with the run, if that was cut off; else NAME=second (say) trains another
# on all that was simulated meanwhile. Settings, with their defaults:
#   WORK=runs/gpu       shards, prepared arrays and runs
#   OUT=out/gpu         results, every file under 15 MiB: cat OUT/checkpoint.tar.* | tar x, cat OUT/state.pt.* > state.pt
#   NAME=first          of the run
#   MINUTES=9           of this call
#   SIMULATE=110        seconds for the first samples, with all cores
#   SIMULATORS=5        cores that simulate while the GPU trains
#   LOADERS=9           cores that draw batches
#   CODEC=              folder of `momap train prepare` whose codec and words are kept; empty: fitted to the samples
#   DEVICE=cuda TRAIN="--compile --batch-size 512 --learning-rate 1e-3 --warmup-steps 300 --channels 128 256 \
#       --encoder-width 256 --encoder-layers 6"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WORK="${WORK:-runs/gpu}" OUT="${OUT:-out/gpu}" NAME="${NAME:-first}" MINUTES="${MINUTES:-9}"
readonly SIMULATE="${SIMULATE:-110}" SIMULATORS="${SIMULATORS:-5}" LOADERS="${LOADERS:-9}" CODEC="${CODEC:-}"
readonly DEVICE="${DEVICE:-cuda}" PYTHON="${PYTHON:-python3}" PER_SHARD=100 EPISODES=1000000
readonly TRAIN="${TRAIN:---compile --batch-size 512 --learning-rate 1e-3 --warmup-steps 300 --channels 128 256 \
    --encoder-width 256 --encoder-layers 6}"
readonly CORES="$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)))')" # nproc reads OMP_NUM_THREADS
export OMP_NUM_THREADS=1
mkdir -p "$WORK/prepared" "$OUT"

momap() { "$PYTHON" -m momap_ros.cli "$@"; }

simulate() { # cores, episodes
    momap simulate --split train --first-episode 0 --episodes "$2" --views 2 --size 128 --workers "$1" \
        --out "$WORK/shards"
}

# Whole shards stay when the time is up. Those behind a gap are dropped, and the manifest of the others is written.
close_shards() {
    local whole=0 first
    while [[ -f "$WORK/shards/$(printf 'train-%07d-%07d.tar' "$whole" $((whole + PER_SHARD)))" ]]; do
        whole=$((whole + PER_SHARD))
    done
    if ((whole == 0)); then
        echo "train_on_gpu: expected a whole shard of $PER_SHARD episodes, got none in $SIMULATE s; raise SIMULATE" >&2
        exit 1
    fi
    for shard in "$WORK"/shards/train-*.tar; do
        first="$(basename "$shard" | cut -c7-13)"
        if ((10#$first >= whole)); then rm -f "$shard" "${shard%.tar}.json"; fi
    done
    simulate 1 "$whole"
}

simulate_for() { # seconds, cores
    timeout --signal=TERM --kill-after=20 "$1" "$PYTHON" -m momap_ros.cli simulate --split train --first-episode 0 \
        --episodes "$EPISODES" --views 2 --size 128 --workers "$2" --out "$WORK/shards" || true
}

prepare() {
    if [[ -n "$CODEC" && ! -d "$WORK/prepared/codec" ]]; then
        cp -r "$CODEC/codec" "$CODEC/vocabulary.json" "$WORK/prepared/"
    fi
    momap train prepare --data "$WORK/shards" --out "$WORK/prepared" --workers "$CORES" --keep-codec
}

if [[ ! -f "$WORK/shards/manifest.json" ]]; then
    simulate_for "$SIMULATE" "$CORES"
    close_shards
fi
if [[ ! -f "$WORK/$NAME/state.pt" ]]; then # a run that was cut off goes on with the samples that it began with
    prepare
    cp "$WORK/shards/manifest.json" "$WORK/prepared/manifest.json"
fi

readonly LEFT=$((MINUTES * 60 - SECONDS - 25)) # saving and exporting take the rest
simulate_for "$LEFT" "$SIMULATORS" &
# shellcheck disable=SC2086
momap train small --data "$WORK/prepared" --out "$WORK/$NAME" --workers 1 --device "$DEVICE" --loaders "$LOADERS" \
    --minutes "$(awk "BEGIN { print $LEFT / 60 }")" $TRAIN
wait
close_shards

momap train export --run "$WORK/$NAME" --data "$WORK/prepared" --manifest "$WORK/prepared/manifest.json" \
    --out "$WORK/$NAME/checkpoint"
cp "$WORK/$NAME/log.csv" "$WORK/$NAME/options.json" "$WORK/prepared/manifest.json" "$OUT/"
tar c -C "$WORK/$NAME" checkpoint | split --bytes=15M --numeric-suffixes - "$OUT/checkpoint.tar."
split --bytes=15M --numeric-suffixes "$WORK/$NAME/state.pt" "$OUT/state.pt."
