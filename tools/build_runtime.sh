#!/usr/bin/env bash
# Build the C++ runtime and put its library beside the Python package.
# usage: build_runtime.sh [--optional] [CMAKE]      --optional: no compiler is no failure
set -euo pipefail
cd "$(dirname "$0")/.."

optional=no
if [ "${1:-}" = --optional ]; then optional=yes; shift; fi
cmake=${1:-cmake}
compiler=${CXX:-$(command -v c++ || command -v g++ || command -v clang++ || true)}
if [ -z "$compiler" ]; then
  echo "no C++ compiler was found, so the C++ runtime is not built: install one (Debian and Ubuntu: apt install g++)" >&2
  [ $optional = yes ] && exit 0 || exit 1
fi
"$cmake" -S deploy/runtime -B build/runtime -G "Unix Makefiles" -DCMAKE_CXX_COMPILER="$compiler" \
  -DROBO_RLFT_PYTHON_DIR="$PWD/robo_rlft/export" > /dev/null
"$cmake" --build build/runtime --parallel "${JOBS:-2}" -- --no-print-directory -s
"$cmake" --install build/runtime --component python > /dev/null
