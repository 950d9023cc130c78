import pytest
from standing import check, stands

from kdedge.core.errors import KdedgeError
from kdedge.profile.tegrastats import (
    Core,
    Engine,
    Load,
    Memory,
    Rail,
    Reading,
    Temperature,
    Total,
    parse_line,
    parse_log,
    total_power,
)

NEW = (
    "03-04-2025 05:06:07 RAM 1100/7620MB (lfb 3x4MB) SWAP 5/3810MB (cached 1MB) CPU [7%@729,100%@1510,off] "
    "EMC_FREQ 4%@2133 GR3D_FREQ 63%@[621,0] GR3D2_FREQ @[306] NVENC off NVDEC 1164 VIC off PVA0_FREQ off APE 200 "
    "cpu@53.968C/60.5C tj@-256C soc2@-3C/-256C VDD_IN 12479mW/11020mW/13000mW NC 0mW/0mW/0mW NC 8mW/8mW/9mW "
    "VDD_GPU -40mW/12mW/90mW"
)
OLD = (
    "RAM 1900/3964MB (lfb 2x128kB) IRAM 0/252kB(lfb 252kB) cpu [5%,off,0%]@1224 EMC 0% VIC_FREQ 115 MTS fg 1% bg 8% "
    "PMIC@100C GPU@35C GPU 467/460 CPU 618/610 NEWUNIT 7 fresh=3"
)


def test_line_of_a_new_board_is_taken_apart():
    assert parse_line(NEW) == Reading(
        time="03-04-2025 05:06:07",
        memory=[Memory("RAM", 1100, 7620, "MB", "lfb 3x4MB"), Memory("SWAP", 5, 3810, "MB", "cached 1MB")],
        cores=[Core(7, 729), Core(100, 1510), None],
        loads=[Load("EMC_FREQ", 4, (2133,)), Load("GR3D_FREQ", 63, (621, None)), Load("GR3D2_FREQ", None, (306,))],
        engines=[
            Engine("NVENC", None),
            Engine("NVDEC", 1164),
            Engine("VIC", None),
            Engine("PVA0_FREQ", None),
            Engine("APE", 200),
        ],
        temperatures=[
            Temperature("cpu", 53.968, 60.5),
            Temperature("tj", None, None),
            Temperature("soc2", -3.0, None),
        ],
        rails=[
            Rail("VDD_IN", 12479, 11020, 13000),
            Rail("NC", 0, 0, 0),
            Rail("NC", 8, 8, 9),
            Rail("VDD_GPU", -40, 12, 90),
        ],
    )


def test_line_of_an_old_board_is_taken_apart():
    """No units of power, one clock for all cores, a sensor and a rail of one name, and what nobody knows yet."""
    assert parse_line(OLD) == Reading(
        memory=[Memory("RAM", 1900, 3964, "MB", "lfb 2x128kB"), Memory("IRAM", 0, 252, "kB", "lfb 252kB")],
        cores=[Core(5, 1224), None, Core(0, 1224)],
        loads=[Load("EMC", 0, ()), Load("MTS fg", 1, ()), Load("MTS bg", 8, ())],
        engines=[Engine("VIC_FREQ", 115)],
        temperatures=[Temperature("PMIC", 100.0, None), Temperature("GPU", 35.0, None)],
        rails=[Rail("GPU", 467, 460, None), Rail("CPU", 618, 610, None)],
        unknown=["NEWUNIT", "7", "fresh=3"],
    )


@pytest.mark.parametrize(
    "line", ["VDD_IN 4915mW/49", "VDD_IN 4915", "RAM 1900/3964", "CPU [5%@12", "GPU@35", "gpu@3.C"]
)
def test_field_that_was_cut_off_yields_no_number(line):
    reading = parse_line(line)
    assert not reading.known
    assert reading.unknown == line.split()


def test_line_that_begins_in_the_middle_is_read_from_there_on():
    reading = parse_line("9%@729,off] GR3D_FREQ 12% VDD_IN 4000mW/3900mW")
    assert reading.loads == [Load("GR3D_FREQ", 12, ())]
    assert reading.rails == [Rail("VDD_IN", 4000, 3900, None)]
    assert reading.unknown == ["9%@729,off]"]


def test_log_keeps_the_lines_of_tegrastats_alone():
    assert parse_log(f"Last login: never\n\n{OLD}\n{NEW}\n") == [parse_line(OLD), parse_line(NEW)]


def test_text_of_something_else_is_an_error():
    with pytest.raises(KdedgeError, match="tegrastats"):
        parse_log("command not found\n")


@pytest.mark.parametrize(
    ("rails", "total"),
    [
        ([("VDD_SOC", 300), ("VDD_IN", 5000), ("VDD_CPU_GPU_CV", 900)], Total(5000, ("VDD_IN",))),
        ([("POM_5V_IN", 1750), ("POM_5V_GPU", 10)], Total(1750, ("POM_5V_IN",))),
        ([("VDD_GPU", -40), ("VIN_SYS_5V0", 100), ("VIN", 9000)], Total(9000, ("VIN",))),
        ([("GPU", 463), ("CPU", 618), ("NC", 7)], Total(1081, ("GPU", "CPU"))),
        ([("NC", 7)], None),
        ([], None),
    ],
)
def test_total_is_the_feeding_rail_or_else_the_sum(rails, total):
    assert total_power(rails) == total


def test_what_mutated_lines_yield_stands_in_them():
    assert check([NEW, OLD], 2000) > 10_000


def test_checker_notices_a_number_that_is_not_there():
    reading = parse_line(NEW)
    stands(reading, NEW)
    for spoiled in (NEW.replace("12479mW", "12478mW"), NEW.replace("53.968C", "53.96C"), NEW.replace("63%", "6%")):
        with pytest.raises(AssertionError):
            stands(reading, spoiled)
    with pytest.raises(AssertionError):
        stands(reading, NEW.replace("VDD_IN", "VDD_SOC"))
