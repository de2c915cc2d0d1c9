#!/bin/sh
# Runs the Python clients of TiKV, as they are published, against a running cluster:
#   check.sh HOST:PORT[,HOST:PORT...]
# They are installed from PyPI into an environment of their own (VENV, by default one that is thrown
# away). tikv-client has wheels for Python 3.11 only: PYTHON names one.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 HOST:PORT[,HOST:PORT...]" >&2
    exit 64
fi
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3.11}
if [ -z "${VENV:-}" ]; then
    VENV=$(mktemp -d)
    trap 'rm -rf "$VENV"' EXIT
fi

"$python" -m venv "$VENV"
"$VENV/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    tikv-client==0.0.4 tikv-python==0.1.1
for client in tikv_client tikv_python; do
    "$VENV/bin/python" "$here/$client.check.py" "$1"
    echo "$client: OK"
done
