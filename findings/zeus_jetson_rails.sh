#!/usr/bin/env bash
# Zeus 0.16.0: an AGX Orin has no total energy, and an Orin NX's "cpu" energy is that of CPU, GPU and accelerators.
#
# Source: zeus/device/soc/jetson.py in the package: a rail whose label contains "cpu" is the CPU, else "gpu" the GPU, else
# "system", "_in" or "total" the total. AGX Orin's rails are VDD_GPU_SOC, VDD_CPU_CV and VIN_SYS_5V0, Orin NX's VDD_IN,
# VDD_CPU_GPU_CV and VDD_SOC
# (https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html).
#
# A good engineer would guess that an energy monitor that supports Jetson gives a total on the largest Orin, and that
# cpu_energy_mj is comparable between two boards of one family.
#
# Seen, with the INA3221s of the boards as sysfs lists them:
#   AGX Orin                         cpu=VDD_CPU_CV gpu=VDD_GPU_SOC
#   Orin NX                          cpu=VDD_CPU_GPU_CV total=VDD_IN
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check zeus==0.16.0

found() { # labels of a board's channels; the files are looked up below a folder instead of /
    local root folder channel=0 label
    root=$(mktemp -d -p "$work")
    folder=$root/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3
    mkdir -p "$folder"
    for label in "$@"; do
        channel=$((channel + 1))
        echo "$label" >"$folder/in${channel}_label"
        echo 5000 >"$folder/in${channel}_input"
        echo 1000 >"$folder/curr${channel}_input"
    done
    "$work/venv/bin/python" - "$root" <<'PYTHON'
import pathlib
import sys

from zeus.device.soc import jetson

jetson.Path = lambda path: pathlib.Path(f"{sys.argv[1]}{path}") if str(path).startswith("/sys/") else pathlib.Path(path)
metrics = jetson.Jetson._discover_available_metrics(None)  # reads the tree alone; __init__ wants a Jetson's processor
labels = {name: way.voltage_path.with_name(way.voltage_path.name.replace("input", "label")) for name, way in metrics.items()}
print(*(f"{name.removesuffix('_power_mw')}={labels[name].read_text().strip()}" for name in sorted(labels)))
PYTHON
}
expect() {
    printf '%-32s %s\n' "$1" "$3"
    [ "$2" = "$3" ] || { echo "changed: expected '$2'"; exit 1; }
}

expect 'AGX Orin' 'cpu=VDD_CPU_CV gpu=VDD_GPU_SOC' "$(found VDD_GPU_SOC VDD_CPU_CV VIN_SYS_5V0)"
expect 'Orin NX' 'cpu=VDD_CPU_GPU_CV total=VDD_IN' "$(found VDD_IN VDD_CPU_GPU_CV VDD_SOC)"
