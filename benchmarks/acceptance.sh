#!/usr/bin/env bash
# Does what the tests run in small hold at full size?
#
#   benchmarks/acceptance.sh [NOTEBOOK ...]
#
# Runs the notebooks (all of them, or those named) from top to bottom with NOTEBOOK_SIZE=full, in the environment whose
# `python` is found first, and says of each whether it ran and for how long. Each may take LIMIT_SECONDS: 180 unless it is
# set, meant for two quiet cores. What they print and draw is left in runs/acceptance; the notebooks stay as they are.
# Exit code: 0 if all ran in time, else 1.
set -uo pipefail
cd "$(dirname "$0")/.."
limit=${LIMIT_SECONDS:-180}
out=runs/acceptance
(($#)) || set -- notebooks/*.ipynb
mkdir -p "$out"
export NOTEBOOK_SIZE=full
failed=0
for notebook in "$@"; do
  name=$(basename "$notebook" .ipynb)
  begun=$SECONDS
  python -m nbconvert --to notebook --execute --output-dir "$out" "$notebook" >"$out/$name.log" 2>&1
  code=$?
  took=$((SECONDS - begun))
  if ((code)); then
    verdict="failed: see $out/$name.log"
  elif ((took > limit)); then
    verdict="ran, but longer than $limit s"
  else
    verdict="ran"
  fi
  [[ $verdict == ran ]] || failed=$((failed + 1))
  printf '%-24s %5d s  %s\n' "$name" "$took" "$verdict"
done
echo "$(($# - failed)) of $# notebooks ran at full size within $limit s each ($(nproc) cores)."
((failed == 0))
