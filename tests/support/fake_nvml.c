/* A stand-in for NVIDIA's management library: GPUs whose answers the tests set. The second is in slot 65, and took 1 J
 * more than the first. */
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };

int fake_init, fake_devices = 1, fake_limit_status;
unsigned fake_limit_mw = 450000;
int fake_sessions;
int fake_energy_status, fake_power_status;
unsigned long long fake_energy_mj = 5000000123456ULL;

int nvmlInitWithFlags(unsigned flags) { (void)flags; if (!fake_init) fake_sessions++; return fake_init; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { fake_sessions--; return SUCCESS; }
static char gpus[8];
int nvmlDeviceGetCount_v2(unsigned *count) { *count = fake_devices; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &gpus[index];
    return index < (unsigned)fake_devices ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    return nvmlDeviceGetHandleByIndex_v2(strcmp(bus, "0000:65:00.0") ? 7 : 1, device);
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) { (void)device; strncpy(name, "NVIDIA GeForce RTX 4090", length); return SUCCESS; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { strncpy(version, "580.95.05", length); return SUCCESS; }
int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *limit) { (void)device; *limit = fake_limit_mw; return fake_limit_status; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    *energy = fake_energy_mj + 1000 * ((char *)device - gpus); return fake_energy_status;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *power) { (void)device; *power = 85500; return fake_power_status; }
int fake_state_status, fake_own_pid;

int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *mhz) { (void)device; *mhz = type == 1 ? 2520 : 0; return fake_state_status; }
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) { (void)device; *celsius = sensor ? 0 : 61; return fake_state_status; }
struct violation { unsigned long long reference, time; };
int nvmlDeviceGetViolationStatus(void *device, unsigned policy, struct violation *found) {
    (void)device; found->time = policy == 1 ? 250000000ULL : 4000000000ULL; return fake_state_status;
}
struct process { unsigned pid; unsigned long long memory; unsigned instances[2]; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *found) {
    (void)device;
    if (fake_state_status) return fake_state_status;
    if (*count < 1) { *count = 1; return 7; }  /* too small */
    *count = 1;
    found->pid = fake_own_pid;
    found->memory = 1234567890ULL;
    return SUCCESS;
}
const char *nvmlErrorString(int status) {
    return status == DRIVER_NOT_LOADED ? "Driver Not Loaded" : status == NOT_FOUND ? "Not Found" : "Not Supported";
}
