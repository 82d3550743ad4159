#!/usr/bin/env bash
# Trains the small model during short stays on a machine with a GPU: every call takes at most MINUTES and goes on where
# the last one ended, also after a kill. While the GPU trains, the CPU cores simulate what the next call trains on.
#
#   scripts/train_on_gpu.sh          once or more often; what it leaves in OUT is a checkpoint, log, state and manifest
#
# The first call only simulates, unless WORK has data already. Settings, with their defaults:
#   WORK=runs/gpu       shards, prepared arrays and the run; keep it between calls
#   OUT=out/gpu         results, every file under 15 MiB (the state in parts: cat state.pt.* > state.pt)
#   MINUTES=9           of one call
#   STEPS=40000 ENCODER_STEPS=6000 BATCH=512
#   DEVICE=cuda GPUS=1 LOADERS=6
#   ROUND=20000         episodes that one call simulates at most, two views each
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WORK="${WORK:-runs/gpu}" OUT="${OUT:-out/gpu}" MINUTES="${MINUTES:-9}" DEVICE="${DEVICE:-cuda}"
readonly STEPS="${STEPS:-40000}" ENCODER_STEPS="${ENCODER_STEPS:-6000}" BATCH="${BATCH:-512}"
readonly GPUS="${GPUS:-1}" LOADERS="${LOADERS:-6}" ROUND="${ROUND:-20000}"
readonly PYTHON="${PYTHON:-python}"
readonly STARTED="$SECONDS" CORES="$(nproc)"
mkdir -p "$WORK" "$OUT"

seconds_left() { echo $((MINUTES * 60 - (SECONDS - STARTED))); }

momap() { "$PYTHON" -m momap_ros.cli "$@"; }

# Whole shards stay when the time is up; the next call makes the rest.
simulate() { # cores, seconds
    local first
    first="$(cat "$WORK/episodes" 2>/dev/null || echo 0)"
    if timeout --signal=TERM --kill-after=20 "$2" "$PYTHON" -m momap_ros.cli simulate --split train --first-episode "$first" \
        --episodes "$ROUND" --views 2 --size 128 --workers "$1" --out "$WORK/shards"; then
        echo $((first + ROUND)) >"$WORK/episodes"
    fi
}

train() { # seconds
    local before after
    before="$(cat "$WORK/prepared_shards" 2>/dev/null || echo 0)"
    after="$(find "$WORK/shards" -name 'train-*.tar' | wc -l)"
    if ((after > before)); then
        momap train prepare --data "$WORK/shards" --out "$WORK/prepared" --workers "$CORES" --keep-codec
        echo "$after" >"$WORK/prepared_shards"
    fi
    timeout --signal=TERM --kill-after=20 "$(($(seconds_left) - 20))" "$PYTHON" -m momap_ros.cli train small \
        --data "$WORK/prepared" --out "$WORK/run" --steps "$STEPS" --encoder-steps "$ENCODER_STEPS" \
        --batch-size "$BATCH" --workers "$GPUS" --device "$DEVICE" --loaders "$LOADERS" || true
}

collect() {
    cp -f "$WORK/run/log.csv" "$WORK/run/options.json" "$WORK/shards/manifest.json" "$OUT/" 2>/dev/null || true
    if [[ -f "$WORK/run/state.pt" ]]; then
        split --bytes=15M --numeric-suffixes "$WORK/run/state.pt" "$OUT/state.pt."
        momap train export --run "$WORK/run" --data "$WORK/prepared" --manifest "$WORK/shards/manifest.json" \
            --out "$OUT/checkpoint"
    fi
}

if ! compgen -G "$WORK/shards/train-*.tar" >/dev/null; then
    simulate "$CORES" "$(($(seconds_left) - 10))"
    exit 0
fi
if [[ ! -f "$WORK/prepared_shards" ]]; then
    train
else
    reserved=$((GPUS * (1 + LOADERS)))
    simulate "$((CORES > reserved ? CORES - reserved : 1))" "$(($(seconds_left) - 30))" &
    train
    wait
fi
collect
