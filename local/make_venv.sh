#!/usr/bin/env bash
# Make .venv: tools and test packages; in .venv/lambda-runtime what Lambda brings (awslambdaric and
# boto3); in .venv/wheels what zipper.sh fetches, for the tests, which have no network.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(local/find_python.sh)
echo "Making .venv with $("$python" --version), once until the requirements change"
"$python" -m venv --clear .venv
install() { # uv is five times as fast; where only pip's own settings lead to an index, pip does it
  .venv/bin/python -m uv pip install --python .venv/bin/python "$@" ||
    .venv/bin/python -m pip install --no-compile "$@"
}
echo "Installing packages (about 90, 400 MB on disk)"
.venv/bin/python -m pip install -qq --constraint local/requirements.txt uv
install --requirement local/requirements.txt
.venv/bin/python -m pip download -qq --require-hashes --no-deps --dest .venv/wheels \
  --requirement requirements.txt
install --constraint local/requirements.txt --target .venv/lambda-runtime awslambdaric boto3
install --quiet --no-build-isolation --no-deps --editable . # .venv/bin/ddg-ops
