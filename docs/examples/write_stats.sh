#!/usr/bin/env bash
# Upload a job's stats file: write_stats.sh BUCKET JOB
set -euo pipefail
bucket=$1
job=$2
LC_ALL=C # a decimal point, whatever the locale

rows=$(seq 1231 | wc -l) # whatever your job counts

now=$(date +%s)
random=$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n') # a unique key; $$ is 1 in each container
printf '{"timestamp": %d, "rows.read": %d, "seconds": %.1f}\n' "$now" "$rows" "$SECONDS" |
  aws s3 cp - "s3://$bucket/stats/$job/$now-$random.json"
