#!/usr/bin/env bash
# A job's stats file, from a shell: write_stats.sh BUCKET JOB
set -euo pipefail
bucket=$1
job=$2
LC_ALL=C # a decimal point, whatever the locale

rows=$(seq 1231 | wc -l) # what your job has counted

now=$(date +%s)
random=$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n') # a key of its own; $$ is 1 in each container
printf '{"timestamp": %d, "rows.read": %d, "seconds": %.1f}\n' "$now" "$rows" "$SECONDS" |
  aws s3 cp - "s3://$bucket/stats/$job/$now-$random.json"
