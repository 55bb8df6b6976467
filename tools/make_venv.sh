#!/usr/bin/env bash
# Make a virtual environment with Python 3.11 or 3.12, or keep the one that is there and works.
# usage: make_venv.sh FOLDER [INTERPRETER]
set -euo pipefail

folder=$1
wanted=${2:-}
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'

works() { "$1" -c "$supported" >/dev/null 2>&1; }
has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }
fail() { echo "error: $*" >&2; exit 1; }

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

if works "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
  if [ -n "$wanted" ] && works "$wanted" && [ "$(version "$wanted")" != "$(version "$folder/bin/python")" ]; then
    fail "$folder holds Python $(version "$folder/bin/python"), not $(version "$wanted"):" \
      "name another folder (make VENV=.venv$(version "$wanted") PYTHON=$wanted), or remove this one (make clean)"
  fi
  exit 0
fi

interpreter=
for candidate in ${wanted:-python3.11 python3.12 python3 python}; do
  if works "$candidate"; then interpreter=$candidate; break; fi
done
[ -n "$interpreter" ] || fail "${wanted:-Python 3.11 or 3.12} was not found or is another version:" \
  "install it (Debian and Ubuntu: apt install python3.12 python3.12-venv; macOS: brew install python@3.12)" \
  "or name one: make PYTHON=/path/to/python3.12"
has_venv "$interpreter" || fail "$interpreter has no venv module:" \
  "install it (Debian and Ubuntu: apt install python$(version "$interpreter")-venv)"

echo "making $folder with $("$interpreter" --version)"
"$interpreter" -m venv --clear "$folder"
