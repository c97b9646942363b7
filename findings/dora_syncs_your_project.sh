#!/usr/bin/env bash
# dora 1.1.0: `dora run` without --uv still asks uv for a node's command, and uv installs the project around it, or fails.
#
# Source: the help of `dora run` ("--uv  Use `uv` to run nodes") makes uv an option. The wheel dora-rs-cli requires uv, so it
# is on the PATH; then dora calls `uv run which COMMAND`, and `uv run` locks and installs the nearest pyproject.toml first
# (https://docs.astral.sh/uv/concepts/projects/run/).
#
# A good engineer would guess that without --uv a node `path: COMMAND` is looked up on the PATH alone, as which(1) does. But
# below a pyproject.toml it leaves an environment and a lock file there; and if uv cannot install that project, dora says
# that the command does not exist.
#
# Seen, of a node `path: numpy-config`, which is on the PATH:
#   no pyproject.toml                      started; left nothing
#   a pyproject.toml                       started; left .venv uv.lock
#   one that uv cannot install             Could not find source path
#   the same, with UV_NO_PROJECT=1         started; left nothing
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dora-rs==1.1.0 dora-rs-cli==1.1.0 uv==0.13.9

expect() { # what, the expected outcome, the pyproject.toml, a setting
    local what=$1 expected=$2 project=$3 setting=${4:-} folder seen
    folder=$(mktemp -d -p "$work")
    printf 'nodes:\n  - id: node\n    path: numpy-config\n    args: --version\n' > "$folder/flow.yml"
    [ -z "$project" ] || printf '[project]\nname = "robot"\nversion = "1"\n%s\n' "$project" > "$folder/pyproject.toml"
    (cd "$folder" && env -u UV_NO_PROJECT $setting VIRTUAL_ENV="$work/venv" PATH="$work/venv/bin:$PATH" \
        timeout 120 dora run flow.yml) > "$work/log" 2>&1 || true # numpy-config is no node of dora, so it fails later
    seen=$(grep -o -m 1 'Could not find source path' "$work/log") ||
        seen="started; left $(cd "$folder" && { ls -Ad .venv uv.lock 2> /dev/null || true; } | xargs)"
    [ "$seen" != 'started; left ' ] || seen='started; left nothing'
    grep -q -e 'Could not find source path' -e 'spawning .*numpy-config' "$work/log" || seen='nothing'
    printf '%-38s %s\n' "$what" "$seen"
    [ "$seen" = "$expected" ] || { echo "changed: expected '$expected'"; exit 1; }
}

expect 'no pyproject.toml' 'started; left nothing' ''
expect 'a pyproject.toml' 'started; left .venv uv.lock' 'dependencies = []'
expect 'one that uv cannot install' 'Could not find source path' 'requires-python = ">=99"'
expect 'the same, with UV_NO_PROJECT=1' 'started; left nothing' 'requires-python = ">=99"' UV_NO_PROJECT=1
