#!/usr/bin/env bash
# Go on with a long training every night, and stop in the morning with a checkpoint. A line for crontab:
#
#     0 22 * * *  cd /home/me/digits && examples/nightly.sh lenet5.yaml runs/long
#
# LIMIT is how long a night is, EPOCHS how long the training is in all. What happened is in RUN.log, how good the model
# is in the morning in RUN.json.
set -euo pipefail

config=${1:?usage: nightly.sh CONFIG RUN}
run=${2:?usage: nightly.sh CONFIG RUN}
mkdir -p "$(dirname "$run")"

code=0
timeout --preserve-status --signal=INT "${LIMIT:-8h}" \
    cnnbp train "$config" --epochs "${EPOCHS:-1000}" --out "$run" --resume >>"$run.log" 2>&1 || code=$?
if ((code != 0 && code != 130)); then # 130: interrupted, with a checkpoint saved
    tail -n 5 "$run.log" >&2
    exit "$code"
fi
cnnbp evaluate "$run" --format json >"$run.json" 2>>"$run.log"
