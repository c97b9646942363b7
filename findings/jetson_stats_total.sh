#!/usr/bin/env bash
# jetson-stats 7.2.2 (jtop): AGX Orin's total counts the memory's rail twice, and a rail that cannot be read leaves the
# total without a word.
#
# Sources: jtop/core/power.py in the package (total_power sums all rails of a board that has no VIN, POM_5V_IN or VDD_IN;
# read_power_status returns nothing if one file of a rail raises OSError, and get_status goes on). NVIDIA's guide,
# https://docs.nvidia.com/jetson/archives/r36.4.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html, and NVIDIA's forum,
# thread 223111: VDDQ_VDD2_1V8AO is a part of VIN_SYS_5V0.
#
# A good engineer would guess that jtop's "total" of a Jetson is its input power, and an unread rail is an error.
#
# Seen, with the INA3221s of an AGX Orin as sysfs lists them, 10, 4, 6 and 2 W:
#   all rails can be read            total 22000 mW of VDDQ_VDD2_1V8AO VDD_CPU_CV VDD_GPU_SOC VIN_SYS_5V0
#   VDD_CPU_CV answers EIO           total 18000 mW of VDDQ_VDD2_1V8AO VDD_GPU_SOC VIN_SYS_5V0
# By NVIDIA's rule the first is 20000 mW, and the second has no total.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jetson-stats==7.2.2

sensor() { # address, hwmon number, then label and mA of each channel, all at 5 V
    local folder=$work/devices/$1/hwmon/hwmon$2 channel=0
    mkdir -p "$folder"
    echo ina3221 >"$work/devices/$1/name"
    shift 2
    while [ $# -gt 0 ]; do
        channel=$((channel + 1))
        echo "$1" >"$folder/in${channel}_label"
        echo 5000 >"$folder/in${channel}_input"
        echo "$2" >"$folder/curr${channel}_input"
        shift 2
    done
}
total() {
    "$work/venv/bin/python" - "$work/devices" <<'PYTHON'
import sys

from jtop.core.power import PowerService, find_all_i2c_power_monitor

service = PowerService.__new__(PowerService)  # its constructor looks into /sys
service._power_avg = {}
service._power_sensor = find_all_i2c_power_monitor(sys.argv[1])
status = service.get_status()
print("total", status["tot"]["power"], "mW of", *sorted(status["rail"]))
PYTHON
}
expect() {
    printf '%-32s %s\n' "$1" "$3"
    [ "$2" = "$3" ] || { echo "changed: expected '$2'"; exit 1; }
}

sensor 1-0040 3 VDD_GPU_SOC 2000 VDD_CPU_CV 800 VIN_SYS_5V0 1200
sensor 1-0041 4 NC 0 VDDQ_VDD2_1V8AO 400 NC 0
expect 'all rails can be read' 'total 22000 mW of VDDQ_VDD2_1V8AO VDD_CPU_CV VDD_GPU_SOC VIN_SYS_5V0' "$(total)"
ln -sf /proc/self/mem "$work/devices/1-0040/hwmon/hwmon3/curr2_input" # reading its first byte is EIO
expect 'VDD_CPU_CV answers EIO' 'total 18000 mW of VDDQ_VDD2_1V8AO VDD_GPU_SOC VIN_SYS_5V0' "$(total)"
