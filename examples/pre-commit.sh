#!/usr/bin/env bash
# A hook of Git that lets no config with a wrong gradient into a commit. To switch it on:
#
#     ln -s ../../examples/pre-commit.sh .git/hooks/pre-commit
#
# CONFIGS is the folder that is watched, LAYERS a Python file with layers of your own.
set -euo pipefail

wrong=0
while IFS= read -r -d '' file; do
    if ! report=$(cnnbp gradcheck "$file" ${LAYERS:+--layers "$LAYERS"} --batch 2 2>&1); then
        printf '%s\n%s\n\n' "$file" "$report" >&2
        wrong=1
    fi
done < <(git diff --cached --name-only --diff-filter=ACMR -z -- "${CONFIGS:-configs}/*.yaml")
exit "$wrong"
