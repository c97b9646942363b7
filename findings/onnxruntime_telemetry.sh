#!/usr/bin/env bash
# ONNX Runtime 1.32.0, Linux wheel: importing it makes a device id, and disable_telemetry_events() comes too late.
#
# Source: docs/Privacy.md in the wheel ("Telemetry is turned ON by default in the official builds"; ORT_DISABLE_TELEMETRY
# must be set "before ONNX Runtime initializes"; the API may come after "a minimal initialization event").
#
# A good engineer would guess that a library that only runs local models writes nothing into a home directory when it is
# imported, and that the documented call disable_telemetry_events(), made right after the import, prevents it.
#
# Seen:
#   import alone                     deviceid onnxruntime.db
#   disable_telemetry_events()       deviceid onnxruntime.db
#   ORT_DISABLE_TELEMETRY=1          (nothing)
#   ORT_DISABLE_TELEMETRY=0          deviceid onnxruntime.db
# About 10 s after the import a process that still runs looks up mobile.events.data.microsoft.com (not tried here).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0

left_by() { # the files that a program leaves in a new home directory; further arguments are settings
    local program=$1 home
    shift
    home=$(mktemp -d -p "$work")
    env -u ORT_DISABLE_TELEMETRY -u XDG_CACHE_HOME HOME="$home" "$@" "$work/venv/bin/python" -c "$program"
    find "$home" -type f -printf '%f\n' | sort | xargs
}
expect() {
    printf '%-32s %s\n' "$1" "${3:-(nothing)}"
    [ "$2" = "$3" ] || { echo "changed: expected '$2'"; exit 1; }
}

both='deviceid onnxruntime.db'
expect 'import alone' "$both" "$(left_by 'import onnxruntime')"
expect 'disable_telemetry_events()' "$both" "$(left_by 'import onnxruntime; onnxruntime.disable_telemetry_events()')"
expect 'ORT_DISABLE_TELEMETRY=1' '' "$(left_by 'import onnxruntime' ORT_DISABLE_TELEMETRY=1)"
expect 'ORT_DISABLE_TELEMETRY=0' "$both" "$(left_by 'import onnxruntime' ORT_DISABLE_TELEMETRY=0)"
