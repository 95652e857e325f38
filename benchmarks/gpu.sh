#!/usr/bin/env bash
# The latency table and the targets of LLaVA-OneVision-7B with random weights on one GPU, in at most nine minutes.
#
#   benchmarks/gpu.sh [FOLDER]        (default: results/latency; PYTHON=... for another interpreter)
#
# Rows are taken up in this order and dropped from the end when time runs out: batch 1 before batch 4, r = 0.25 before
# 0.2, 0.15 and 0.1, within a ratio in the order of sweeps/conf/method/all.yaml. Called again, it goes on with what was
# not measured. The last lines are the tables of all that the folder holds.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
folder=${1:-results/latency}
mkdir -p "$folder"

timeout 150 "$python" benchmarks/targets.py --backbone llava_ov_7b --device cuda --limit-s 80 | tee "$folder/targets.md" ||
  echo "targets: status ${PIPESTATUS[0]} (1: a target is not met, 124: out of time)"
timeout 380 "$python" -m sweeps latency backbone=llava_ov_7b weights=random method=all retention=.25,.20,.15,.10 \
  frames=32 batch=1,4 device=cuda decode_tokens=8 limit_s=310 --results "$folder" > "$folder/table.md" ||
  echo "latency: status $? (1: some rows are not measured yet, 124: out of time)"
cat "$folder/table.md"
