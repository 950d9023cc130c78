import pytest
from tree import plant

from kdedge.profile import sysfs
from kdedge.profile.sysfs import Clock, Cooler, Zone

HWMON = "sys/class/hwmon"
ORIN = {
    f"{HWMON}/hwmon1/name": "ina3221",
    f"{HWMON}/hwmon1/in1_label": "VDD_IN",
    f"{HWMON}/hwmon1/in1_input": 5016,
    f"{HWMON}/hwmon1/curr1_input": 1000,
    f"{HWMON}/hwmon1/curr1_crit_alarm": 0,
    f"{HWMON}/hwmon1/curr1_max_alarm": 1,
    f"{HWMON}/hwmon1/in2_label": "VDD_SOC",
    f"{HWMON}/hwmon1/in2_input": 5000,
    f"{HWMON}/hwmon1/curr2_input": 250,
    f"{HWMON}/hwmon1/in3_label": "NC",
    f"{HWMON}/hwmon1/in3_input": 5000,
    f"{HWMON}/hwmon1/curr3_input": 9,
    f"{HWMON}/hwmon1/in7_label": "sum of shunt voltages",
    f"{HWMON}/hwmon1/in7_input": 3,
    f"{HWMON}/hwmon10/name": "soctherm_oc",
    f"{HWMON}/hwmon10/oc1_event_cnt": 0,
    f"{HWMON}/hwmon10/oc3_event_cnt": 27390,
    f"{HWMON}/hwmon10/oc3_throt_en": 1,
    f"{HWMON}/hwmon2/name": "pwmfan",
    f"{HWMON}/hwmon2/pwm1": 55,
    "var/lib/nvfancontrol/status": "FAN1:FAN_PROFILE:quiet",
    "sys/class/devfreq/17000000.gpu/cur_freq": 306000000,
    "sys/class/devfreq/17000000.gpu/min_freq": 306000000,
    "sys/class/devfreq/17000000.gpu/max_freq": 624750000,
    "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov",
    "sys/class/devfreq/17000000.gpu/device/load": 985,
    "sys/class/devfreq/15340000.vic/cur_freq": 115200000,
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": 2133000000,
    "sys/kernel/debug/bpmp/debug/clk/emc/max_rate": 3199000000,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 729600,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": 729600,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": 1510400,
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
    "sys/devices/system/cpu/cpu1/online": 0,
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 53968,
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": 104500,
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": 99000,
    "sys/class/thermal/thermal_zone0/trip_point_10_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_10_temp": 95500,
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": None,
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal",
    "sys/class/thermal/thermal_zone2/temp": -256000,
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": 2,
    "sys/class/thermal/cooling_device1/type": "devfreq-17000000.gpu",
    "sys/class/thermal/cooling_device1/cur_state": 0,
    "sys/class/thermal/cooling_device10/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device10/cur_state": 3,
}


@pytest.fixture
def orin(tmp_path):
    return plant(tmp_path, ORIN)


def test_power_of_a_rail_is_voltage_times_current(orin):
    assert {rail.name: rail.milliwatts() for rail in sysfs.power_rails(orin)} == {"VDD_IN": 5016.0, "VDD_SOC": 1250.0}


def test_rail_that_can_be_read_no_more_is_none(orin):
    rail = sysfs.power_rails(orin)[0]
    (orin / HWMON / "hwmon1/curr1_input").unlink()
    assert rail.milliwatts() is None


def test_alarms_and_over_current_counters(orin):
    assert sysfs.alarms(orin) == {"VDD_IN crit": 0, "VDD_IN max": 1}
    assert sysfs.over_current_events(orin) == {"oc1": 0, "oc3": 27390}


def test_clocks_are_in_megahertz(orin):
    assert sysfs.device_clocks(orin) == {
        "15340000.vic": Clock(115.2, None, None, ""),
        "17000000.gpu": Clock(306.0, 306.0, 624.75, "nvhost_podgov"),
        "EMC": Clock(2133.0, None, 3199.0, ""),
    }
    assert sysfs.cpu_clocks(orin) == {"cpu0": Clock(729.6, 729.6, 1510.4, "schedutil")}
    assert sysfs.gpu_loads(orin) == {"17000000.gpu": 98.5}


@pytest.mark.parametrize("name", ["gpu-gpc-0", "17000000.gpu", "57000000.gpu", "17000000.gv11b", "17000000.ga10b"])
def test_gpu_is_known_by_any_of_its_names(name):
    assert sysfs.GPU.fullmatch(name)


@pytest.mark.parametrize("name", ["15340000.vic", "gpu-nvd-0", "EMC"])
def test_other_devices_are_no_gpu(name):
    assert not sysfs.GPU.fullmatch(name)


def test_clocks_are_pinned_when_all_have_one_value(orin):
    assert sysfs.clocks_pinned(orin) is False
    plant(orin, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": 1510400})
    assert sysfs.clocks_pinned(orin) is False, "the GPU is not"
    plant(orin, {"sys/class/devfreq/17000000.gpu/min_freq": 624750000})
    assert sysfs.clocks_pinned(orin) is True
    (orin / "sys/class/devfreq/17000000.gpu/min_freq").unlink()
    assert sysfs.clocks_pinned(orin) is None


def test_zone_that_cannot_be_read_or_is_off_has_no_temperature(orin):
    assert sysfs.zones(orin) == {
        "cpu-thermal": Zone(53.968, 95.5),
        "gpu-thermal": Zone(None, None),
        "cv0-thermal": Zone(None, None),
    }


def test_fans_are_no_throttle(orin):
    assert list(sysfs.coolers(orin).items()) == [
        ("cooling_device1", Cooler("devfreq-17000000.gpu", 0)),
        ("cooling_device10", Cooler("cpufreq-cpu0", 3)),
    ]
    assert sysfs.fan(orin) == {"pwm": 55, "profile": "quiet"}


@pytest.mark.parametrize("text", ["", "abc", "12.5", "0x1f", "1" * 30, "1 2"])
def test_file_without_a_whole_number_says_nothing(tmp_path, text):
    assert sysfs.number(plant(tmp_path, {"value": text}) / "value") is None


def test_machine_without_any_of_it_says_nothing(tmp_path):
    readers = (sysfs.alarms, sysfs.over_current_events, sysfs.device_clocks, sysfs.cpu_clocks, sysfs.gpu_loads)
    assert [reader(tmp_path) for reader in (*readers, sysfs.zones, sysfs.coolers, sysfs.fan)] == [{}] * 8
    assert sysfs.power_rails(tmp_path) == []
    assert sysfs.clocks_pinned(tmp_path) is None


def test_largest_blocks_are_counted_over_all_zones(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096}.__getitem__)
    zones = "Node 0, zone      DMA      0      3      2      0\nNode 0, zone   Normal      9      9      5"
    assert sysfs.largest_blocks(plant(tmp_path, {"proc/buddyinfo": zones})) == (7, 16384)
    assert sysfs.largest_blocks(tmp_path / "nothing") is None
