#!/usr/bin/env bash
# Train with several learning rates, one process for each core, and list the best first. Needs jq.
#
#     examples/sweep.sh configs/lenet5.yaml 0.0003 0.001 0.003 0.01
#
# What was interrupted goes on where it stopped. OUT is the folder of the runs, JOBS the number of runs at a time,
# EPOCHS their length; without it the config's own counts.
set -euo pipefail

config=${1:?usage: sweep.sh CONFIG RATE...}
shift
out=${OUT:-runs/sweep}
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}

cnnbp validate "$config" >&2

# A rate that is too large ends in NaN and code 1: a result like any other.
printf '%s\n' "$@" | xargs -P "$jobs" -I RATE \
    cnnbp train "$config" --set train.optimizer.learning_rate=RATE ${EPOCHS:+--epochs "$EPOCHS"} \
    --workers 1 --out "$out/RATE" --resume --quiet --format csv >/dev/null || true

printf 'loss\taccuracy\trun\n'
jq --slurp --raw-output '
    map(select(.event == "finished")) | group_by(.run) | map(last)
    | sort_by(.validation_loss // .test_loss)[]
    | [.validation_loss // .test_loss, .validation_accuracy // .test_accuracy, .run] | @tsv
' "$out"/*/events.jsonl
