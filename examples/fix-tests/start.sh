#!/bin/sh
# Mends the failing tests of a repository:
#
#   ./start.sh JOB --repo /srv/repo --test 'python3 -m unittest' --one 'python3 -m unittest {}'
#
# `./fix_tests.py tasks --help` has all options. LANES (2) is how many failures are worked on side by side, BUDGET_USD (10)
# what all agents together may cost; empty for no bound.
set -eu

case "${1:-}" in
'' | -*)
    echo "usage: $0 JOB --repo REPO --test COMMAND --one COMMAND [OPTIONS]" >&2
    exit 2
    ;;
esac
job=$1
shift
here=$(dirname "$0")
lanes=${LANES:-2}
budget=${BUDGET_USD-10}
tasks=$(python3 "$here/fix_tests.py" tasks --lanes "$lanes" "$@")

# A failure that cannot be mended does not keep the others from it.
airx spec "$job" set on_failure=continue ${budget:+"budget.usd=$budget"} >/dev/null
lane=1
while [ "$lane" -le "$lanes" ]; do
    airx spec "$job-$lane" set on_failure=continue >/dev/null
    lane=$((lane + 1))
done
printf '%s' "$tasks" | airx submit "$job" -f -
