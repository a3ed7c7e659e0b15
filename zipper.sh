#!/usr/bin/env bash
# Make ddg_metric_submit.zip and ddg_mock_datasource.zip: the same bytes wherever it is run.
set -euo pipefail
cd "$(dirname "$0")"
runtime=3.13                            # the Python of the functions in main.tf
work=$(mktemp -d "$PWD/.zipper.XXXXXX") # beside the zips: there mv replaces a file in one step
trap 'rm -rf "$work"' EXIT

python=.venv/bin/python
if ! "$python" -m pip --version >/dev/null 2>&1; then
  python=$(local/find_python.sh)
  "$python" -m venv "$work/venv"
  python=$work/venv/bin/python
fi

echo "Fetching the packages of requirements.txt"
# For any machine: pip would otherwise take wheels compiled for this one.
"$python" -m pip install -qq --require-hashes --no-deps --no-compile --requirement requirements.txt \
  --only-binary=:all: --platform any --implementation py --abi none --python-version "$runtime" \
  --target "$work/packages"

"$python" -I local/make_zip.py "$runtime" ddg_metric_submit.py "$work/ddg_metric_submit.zip" "$work/packages"
"$python" -I local/make_zip.py "$runtime" ddg_mock_datasource.py "$work/ddg_mock_datasource.zip"
mv "$work"/*.zip .
