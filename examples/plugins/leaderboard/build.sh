#!/bin/sh
# Makes dist/leaderboard.wasm. componentize-py is looked for in .venv first.
set -eu
PATH="$PWD/.venv/bin:$PATH"
if ! command -v componentize-py >/dev/null; then
  echo "componentize-py is missing; install it: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt" >&2
  exit 1
fi
mkdir -p dist
# Python's standard library imports sockets, which no plugin is granted: --stub-wasi takes all of WASI out.
exec componentize-py --quiet --wit-path wit --world plugin componentize --stub-wasi --python-path src --output dist/leaderboard.wasm leaderboard
