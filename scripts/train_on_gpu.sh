#!/usr/bin/env bash
# Trains the small model during a short stay on a machine with a GPU, where nothing is but this repository: all cores
# simulate first, then those that training leaves idle simulate on, and the run takes up what they make.
#
#   scripts/train_on_gpu.sh          one stay; what it leaves in OUT is a checkpoint, its log and the data's manifest
#
# Called again with the same WORK it goes on with a run that was cut off. On another machine, START=<checkpoint folder
# of an earlier stay> and FIRST=<an episode that it had not> go on from there. Settings, with their defaults:
#   WORK=runs/gpu       shards, prepared arrays and runs
#   OUT=out/gpu         results, every file under 15 MiB: cat OUT/checkpoint.tar.* | tar x, cat OUT/state.pt.* > state.pt
#   STATE=yes           whether state.pt is among them: 16 times as large as the checkpoint
#   NAME=first          of the run
#   MINUTES=9           of this call
#   FIRST=0             episode to begin with
#   SPLIT=train         of the episodes; strange: half of what is acted on is of random shape, with a made-up name (START!)
#   SIMULATE=100        seconds for the first samples, with all cores
#   VIEWS=3             cameras per episode
#   GROW=yes            whether the run takes up what is simulated during it; otherwise nothing is
#   LOADERS=9           cores that draw batches
#   VALIDATION=200      episodes of the validation split, to be looked at during training
#   START=              checkpoint folder whose weights, codec and words the run begins with; empty: random weights
#   DEVICE=cuda TRAIN="--compile --batch-size 512 --learning-rate 1e-3 --warmup-steps 300 --channels 128 256 \
#       --encoder-width 256 --encoder-layers 6"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WORK="${WORK:-runs/gpu}" OUT="${OUT:-out/gpu}" NAME="${NAME:-first}" MINUTES="${MINUTES:-9}"
readonly SIMULATE="${SIMULATE:-100}" VIEWS="${VIEWS:-3}" GROW="${GROW:-yes}" LOADERS="${LOADERS:-9}"
readonly FIRST="${FIRST:-0}" SPLIT="${SPLIT:-train}" VALIDATION="${VALIDATION:-200}"
readonly START="${START:-}" STATE="${STATE:-yes}"
readonly DEVICE="${DEVICE:-cuda}" PYTHON="${PYTHON:-python3}" PER_SHARD=100 EPISODES=1000000
readonly TRAIN="${TRAIN:---compile --batch-size 512 --learning-rate 1e-3 --warmup-steps 300 --channels 128 256 \
    --encoder-width 256 --encoder-layers 6}"
readonly CORES="$("$PYTHON" -c 'import os; print(len(os.sched_getaffinity(0)))')" # nproc reads OMP_NUM_THREADS
export OMP_NUM_THREADS=1
mkdir -p "$WORK/prepared" "$OUT"

momap() { "$PYTHON" -m momap_ros.cli "$@"; }

simulate() { # split, first episode, episodes, cores
    momap simulate --split "$1" --first-episode "$2" --episodes "$3" --views "$VIEWS" --size 128 --workers "$4" \
        --out "$WORK/shards"
}

# Shards that came too late to be read go; the manifest says what the others are.
write_manifest() {
    local learned shard
    learned="$(grep -rhoE "$SPLIT-[0-9]+-[0-9]+\.tar" --include=shards.json --exclude-dir='.*.partial' "$WORK/prepared")"
    for shard in "$WORK/shards/$SPLIT"-*.tar; do
        if [[ "$learned" != *"$(basename "$shard")"* ]]; then rm -f "$shard" "${shard%.tar}.json"; fi
    done
    simulate "$SPLIT" "$FIRST" $((PER_SHARD * $(wc -l <<< "$learned"))) 1
    cp "$WORK/shards/manifest.json" "$WORK/prepared/manifest.json"
}

# Training goes first: whoever has less to do there is nicer.
in_background() { # niceness, command
    setsid nice -n "$1" "$PYTHON" -m momap_ros.cli "${@:2}" &
    background+=("$!")
}

background=()
stop_background() { # with all of their processes; what they write is whole or not there
    for process in "${background[@]}"; do
        kill -KILL -- "-$process" 2> /dev/null || true
        wait "$process" 2> /dev/null || true
    done
    background=()
}
trap stop_background EXIT

prepare() {
    if [[ -n "$START" && ! -d "$WORK/prepared/codec" ]]; then
        cp -r "$START/codec" "$WORK/prepared/"
        "$PYTHON" -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["vocabulary"]))' \
            < "$START/scene_encoder/config.json" > "$WORK/prepared/vocabulary.json"
    fi
    momap train prepare --data "$WORK/shards" --out "$WORK/prepared" --workers "$CORES" --keep-codec
}

if [[ ! -f "$WORK/$NAME/state.pt" ]]; then # a run that was cut off goes on with the samples that are there
    if ((VALIDATION > 0)); then simulate val 0 "$VALIDATION" "$CORES"; fi
    in_background 15 simulate --split "$SPLIT" --first-episode "$FIRST" --episodes "$EPISODES" --views "$VIEWS" \
        --size 128 --workers "$CORES" --out "$WORK/shards"
    sleep "$SIMULATE"
    if ! compgen -G "$WORK/shards/$SPLIT-*.tar" > /dev/null; then
        echo "train_on_gpu: expected a whole shard of $PER_SHARD episodes, got none in $SIMULATE s; raise SIMULATE" >&2
        exit 1
    fi
    if [[ "$GROW" != yes ]]; then stop_background; fi
    prepare
    if [[ "$GROW" == yes ]]; then
        in_background 5 train prepare --data "$WORK/shards" --out "$WORK/prepared" --workers 4 --follow 8
    fi
fi
grows=""
if [[ "$GROW" == yes ]]; then grows=--grows; fi
left="$("$PYTHON" -c "print($MINUTES - ($SECONDS + 30) / 60)")" # saving, the manifest and exporting take the rest
# shellcheck disable=SC2086
momap train small --data "$WORK/prepared" --out "$WORK/$NAME" --workers 1 --device "$DEVICE" --loaders "$LOADERS" \
    --minutes "$left" ${START:+--start-from "$START"} $grows $TRAIN
stop_background
write_manifest
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
