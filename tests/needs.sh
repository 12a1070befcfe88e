#!/usr/bin/env bash
# Installs what the tests use beside cargo: Node.js with npm packages (real clients, plugins in JavaScript), Python with componentize-py
# (plugins in Python), Chromium (the demo pages), PostgreSQL (a datasource) and minisign (signatures of plugins).
# As root through apt-get; otherwise it says what is missing.
set -euo pipefail
cd "$(dirname "$0")"

need() { # command, Debian packages
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "'$1' is missing: install it (Debian: apt-get install ${*:2}), then run make test again" >&2
    exit 1
  fi
  if [ -z "${updated:-}" ]; then
    apt-get update -qq
    updated=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}"
}

need node nodejs npm
need npm npm
need chromium chromium fonts-dejavu-core
need minisign minisign
# Debian keeps its programs out of the search path.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need initdb postgresql
need python3 python3 python3-venv
# Debian has apart what a venv is made of.
python3 -c 'import ensurepip' 2>/dev/null || need ensurepip python3-venv
for lock in */package-lock.json ../examples/plugins/*/package-lock.json; do
  (cd "$(dirname "$lock")" && npm ci --no-audit --no-fund --loglevel=error)
done
for requirements in ../examples/plugins/*/requirements.txt; do
  venv=$(dirname "$requirements")/.venv
  # What was installed of it is kept until it says something else.
  cmp -s "$requirements" "$venv/installed" && continue
  python3 -m venv --clear "$venv"
  timeout 600 "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$venv/installed"
done
