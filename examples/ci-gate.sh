#!/usr/bin/env bash
# Train from scratch, and fail the build where the accuracy on the test images is below a limit.
#
#     examples/ci-gate.sh configs/lenet5.yaml 0.97
#
# EPOCHS shortens the training. The report is JSON on standard output.
set -euo pipefail

config=${1:?usage: ci-gate.sh CONFIG MIN_ACCURACY}
minimum=${2:?usage: ci-gate.sh CONFIG MIN_ACCURACY}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cnnbp train "$config" ${EPOCHS:+--epochs "$EPOCHS"} --out "$folder/run" >&2
cnnbp evaluate "$folder/run" --min-accuracy "$minimum" --format json
