#!/usr/bin/env bash
# Make .venv with tools and test packages. .venv/lambda-runtime has what Lambda provides (awslambdaric
# and boto3), .venv/wheels what zipper.sh fetches, for the tests, which have no network.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
python=$(local/find_python.sh)
# Ignores these pip settings of yours; index, proxy and certificates still apply.
export PIP_USER=0 PIP_ROOT=/ PIP_CONSTRAINT=/dev/null
prefix=$PWD/.venv target=""

pip_install() { .venv/bin/python -m pip install --prefix "$prefix" --target "$target" "$@"; }

install() { # uv is five times as fast; pip is for an index that only pip's settings name
  quietly .venv/bin/python -m uv pip install --python .venv/bin/python ${target:+--target "$target"} "$@" ||
    quietly pip_install --no-compile "$@"
}

quietly() { # one changing line on a terminal; the whole output if the command fails
  "$@" 2>&1 | tee .venv/log | while IFS= read -r line; do
    if [ -t 1 ]; then printf '\r\033[K%.78s' "$line"; fi
  done || { cat .venv/log && return 1; }
  if [ -t 1 ]; then printf '\r\033[K'; fi
}

echo "Making .venv with $("$python" --version), once until the requirements change"
"$python" -m venv --clear .venv
echo "Installing packages (about 90, 600 MB on disk)"
pip_install -qq --constraint local/requirements.txt uv
install --requirement local/requirements.txt
.venv/bin/python -m pip download -qq --require-hashes --no-deps --dest .venv/wheels \
  --requirement requirements.txt
prefix="" target=.venv/lambda-runtime install --constraint local/requirements.txt awslambdaric boto3
.venv/bin/python -m compileall -q .venv/lambda-runtime # as Lambda's is; the local run writes no bytecode
install --no-build-isolation --no-deps --editable . # .venv/bin/ddg-ops
