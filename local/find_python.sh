#!/usr/bin/env bash
# Print the Python to build with: $PYTHON, or the first usual name that runs Python >= 3.11 with venv.
set -euo pipefail
needs='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
if [ -n "${PYTHON:-}" ]; then names=("$PYTHON"); else names=(python3.13 python3.12 python3.11 python3 python3.14); fi
for name in "${names[@]}"; do # run it: a name on the PATH may be a shim without a Python
  if "$name" -c "$needs" 2>/dev/null; then command -v "$name" && exit; fi
done
echo "This needs Python >= 3.11 with venv; tried: ${names[*]}.
Debian, Ubuntu: apt install python3-venv. Elsewhere: install Python >= 3.11,
or name one before the command: PYTHON=/path/to/python3.12" >&2
exit 1
