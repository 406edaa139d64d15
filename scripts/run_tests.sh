#!/bin/bash
# Runs CTest for a preset and closes with a line that counts what passed, failed and was skipped.
set -uo pipefail
preset=$1
shift
log=build/$preset/ctest.log
ctest --test-dir "build/$preset" --output-on-failure -j 2 "$@" | tee "$log"
status=${PIPESTATUS[0]}
passed=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*   Passed ' "$log")
skipped=$(grep -cE '^ *[0-9]+/[0-9]+ Test .*\*\*\*Skipped' "$log")
total=$(grep -cE '^ *[0-9]+/[0-9]+ Test ' "$log")
failed=$((total - passed - skipped))
if [ "$skipped" -gt 0 ]; then
  echo "skipped, for want of what they need (run one alone to see the reason):"
  grep -E '\*\*\*Skipped' "$log" | sed -E 's/^.*: ([^ ]+) \.*.*$/  \1/'
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$total" -gt 0 ] && exit "$status"
exit 1
