#!/usr/bin/env bash
# Make ddg_metric_submit.zip and ddg_mock_datasource.zip. With a Python 3.13 their bytes are always the same.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")"
runtime=3.13                            # the Python of the functions in main.tf
work=$(mktemp -d "$PWD/.zipper.XXXXXX") # on the same disk as the zips, so mv replaces a file in one step
trap 'rm -rf "$work"' EXIT

python=.venv/bin/python
if ! "$python" -m pip --version >/dev/null 2>&1; then
  python=$(local/find_python.sh)
  "$python" -m venv "$work/venv"
  python=$work/venv/bin/python
fi

echo "Fetching the packages of requirements.txt"
# For any platform: otherwise pip takes wheels compiled for this one. It only downloads, so your pip
# settings of where to install (root, prefix, target, user) and of constraints don't matter.
PIP_CONSTRAINT=/dev/null "$python" -m pip download -qq --require-hashes --no-deps --dest "$work/wheels" \
  --requirement requirements.txt \
  --only-binary=:all: --platform any --implementation py --abi none --python-version "$runtime"
for wheel in "$work"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$work/packages"; done

# The functions' own Python adds bytecode. pyenv's python3.13 only runs if a 3.13 is selected.
show="import compileall, modulefinder, sys, zlib; '%d.%d' % sys.version_info[:2] == '$runtime' and print(sys.executable)"
for name in "$python" "python$runtime"; do
  found=$(PYENV_VERSION=$runtime "$name" -I -S -c "$show" 2>/dev/null) || continue
  if [ -n "$found" ]; then python=$found && break; fi
done
"$python" -I local/make_zip.py "$runtime" ddg_metric_submit.py "$work/ddg_metric_submit.zip" "$work/packages"
"$python" -I local/make_zip.py "$runtime" ddg_mock_datasource.py "$work/ddg_mock_datasource.zip" "$work/none"
mv "$work"/*.zip .
