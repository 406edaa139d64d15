#!/bin/bash
# Runs the fuzz targets of build/fuzz (or the one named) for some seconds each, from the seeds and from what earlier runs
# found. Ends with 1 at the first finding, whose input is kept in build/fuzz/findings.
set -euo pipefail
seconds=$1
only=${2:-}
work=build/fuzz
mkdir -p $work/findings
python3 tests/fuzz_corpus.py $work/seeds
for target in $work/fuzz/fuzz_*; do
  name=${target##*/fuzz_}
  [ -x "$target" ] && [ -f "$target" ] || continue
  [ -z "$only" ] || [ "$only" = "$name" ] || continue
  mkdir -p "$work/corpus/$name"
  dict=()
  [ -f "$work/seeds/$name.dict" ] && dict=(-dict="$work/seeds/$name.dict")
  echo "fuzzing $name for $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$work/findings/$name-" "${dict[@]}" "$work/corpus/$name" "$work/seeds/$name"
done
echo "nothing found"
