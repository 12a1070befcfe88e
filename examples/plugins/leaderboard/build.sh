#!/bin/sh
# Makes dist/leaderboard.wasm. componentize-py is looked for in .venv first.
set -eu
PATH="$PWD/.venv/bin:$PATH"
mkdir -p dist
# Python's standard library imports sockets, which no plugin is granted: --stub-wasi takes all of WASI out.
exec componentize-py --quiet --wit-path wit --world plugin componentize --stub-wasi --python-path src --output dist/leaderboard.wasm leaderboard
