#!/usr/bin/env bash
# Make the virtual environment, or bring it to what a lock file says. Quick when there is nothing to do.
#   bootstrap_venv.sh VENV LOCK
set -euo pipefail
venv=$1
lock=$2

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or 3.12 is needed and was not found: install it (Debian 12: apt-get install python3 python3-venv)." >&2
    exit 1
}

# One at a time: where somebody else has the package lists, apt does not wait, it fails.
apt_get() {
    flock /var/cache/apt/constellation.lock apt-get -qq -o DPkg::Lock::Timeout=600 "$@"
}

# Two at once in one directory: the second waits, and finds it done.
if command -v flock >/dev/null 2>&1; then
    exec 9<.
    flock 9
    if [[ $lock != *-ml* && $venv/.ready -nt $lock && $venv/.ready -nt pyproject.toml && $venv/.ready -nt $0 ]]; then
        exit 0
    fi
fi

# One that was ended in the middle has a Python and nothing to install with: it is made anew.
if [ ! -x "$venv/bin/uv" ] && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
fi
if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    echo "· Making the virtual environment with $("$python" --version)"
    if ! "$python" -m venv "$venv" 2>/dev/null; then
        rm -rf "$venv"
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            apt_get update && apt_get install -y --no-install-recommends python3-venv >/dev/null
            "$python" -m venv "$venv"
        else
            echo "Python's venv module is missing: install it (Debian: apt-get install python3-venv)." >&2
            exit 1
        fi
    fi
fi
if [ ! -x "$venv/bin/uv" ]; then
    "$venv/bin/pip" install -q --disable-pip-version-check uv
fi

case "$lock" in
*-ml*)
    echo "· Installing torch and transformers for the tests (CPU builds)"
    # uv does not read pip's variable, and plain PyPI's torch would bring gigabytes of CUDA.
    if [ -n "${PIP_FIND_LINKS:-}" ]; then
        "$venv/bin/uv" pip install -q -p "$venv" --find-links "$PIP_FIND_LINKS" -r "$lock"
    else
        "$venv/bin/uv" pip install -q -p "$venv" --torch-backend cpu -r "$lock"
    fi
    touch "$venv/.ready-ml"
    ;;
*)
    echo "· Installing the locked packages"
    "$venv/bin/uv" pip install -q -p "$venv" --require-hashes -r "$lock"
    "$venv/bin/uv" pip install -q -p "$venv" --no-deps -e .
    touch "$venv/.ready"
    ;;
esac
