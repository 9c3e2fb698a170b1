"""``streamer pick``: the same samples give the same bytes, however they are cut, stored, named and ordered."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pytest
from archive_kit import COMPONENTS, packet, packets, picked, picked_text
from daemon_kit import DURATION_S, P_AT_S, S_AT_S, SECOND_NS, START_NS, expected, found, pulses, three_components
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymseed import MS3Record

from streamer.archive.cells import CHUNK_NS, Cells, cell_length_ns
from streamer.archive.plan import Tally, plan
from streamer.archive.reader import ArchiveReader
from streamer.archive.selection import Selection
from streamer.record import Record
from streamer.stations import Stations

GAPS = {"HHZ": ((17.0, 18.5),), "HHN": ((9.0, 18.5),), "HHE": ((3.0, 22.4), (26.0, 40.0))}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    sizes=st.fixed_dictionaries({code: st.lists(st.integers(7, 4096), min_size=1, max_size=4) for code in COMPONENTS}),
    files=st.integers(1, 5),
    seed=st.integers(0, 1000),
    gaps=st.booleans(),
)
def test_any_packetisation_any_files_any_order(
    tmp_path: Path, sizes: dict[str, list[int]], files: int, seed: int, gaps: bool
) -> None:
    """Records of 7 to 4,096 samples, dealt out to files at random and the files named in any order: equal bytes."""
    for old in tmp_path.glob("*.mseed"):
        old.unlink()
    reference = tmp_path / "reference.mseed"
    reference.write_bytes(b"".join(records({code: [100] for code in COMPONENTS}, gaps)))
    wanted = picked_text(tmp_path, reference)
    dealt: list[list[bytes]] = [[] for _ in range(files)]
    generator = random.Random(seed)
    shuffled = records(sizes, gaps)
    generator.shuffle(shuffled)
    for record in shuffled:
        generator.choice(dealt).append(record)
    paths = []
    for number, content in enumerate(dealt):
        if content:
            paths.append(tmp_path / f"{generator.random()}-{number}.mseed")
            paths[-1].write_bytes(b"".join(content))
    generator.shuffle(paths)
    assert picked_text(tmp_path, *paths) == wanted
    assert wanted.count("\n") >= 3


def test_single_samples(tmp_path: Path) -> None:
    """Records of one sample each give the same bytes as records of whole minutes."""
    path = tmp_path / "data.mseed"
    path.write_bytes(b"".join(records({code: [100_000] for code in COMPONENTS}, gaps=True)))
    wanted = picked_text(tmp_path, path)
    path.write_bytes(b"".join(records({code: [1] for code in COMPONENTS}, gaps=True)))
    assert picked_text(tmp_path, path) == wanted


def test_one_long_record_beside_short_ones(tmp_path: Path) -> None:
    """A component whose record is 40 s long is not late for those whose records are 1 s long: nothing is missing."""
    path = tmp_path / "data.mseed"
    sizes = {"HHZ": [4000], "HHN": [100], "HHE": [100]}
    path.write_bytes(b"".join(records(sizes, gaps=False)))
    messages = picked(tmp_path, path)
    assert found(messages) == expected()
    flags = {flag for one in messages for flag in one["analyticsInfo"]["extensions"]["onset"]["quality"]}
    assert not [flag for flag in flags if flag.startswith("missing")]


@pytest.mark.parametrize("returns", sorted(COMPONENTS))
def test_a_component_that_returns_within_long_records(tmp_path: Path, returns: str) -> None:
    """A component is given up and returns in the middle of long records of the others: no sample of it is late."""
    texts = set()
    for long, short in ((1200, 100), (700, 30), (1, 1)):
        path = tmp_path / "data.mseed"
        path.write_bytes(
            b"".join(
                record
                for code, at_s in COMPONENTS.items()
                for record in (
                    packets(code, at_s, [short], gaps_s=((1.0, 30.1),))
                    if code == returns
                    else packets(code, at_s, [long])
                )
            )
        )
        texts.add(picked_text(tmp_path, path))
        assert late_samples(path) == 0
    assert len(texts) == 1


def late_samples(path: Path) -> int:
    """How often the stations refuse something of a file as late."""
    tally = Tally()
    reader = ArchiveReader(plan([path], Selection(), tally), Selection(), tally)
    stations, cells = Stations(choose_s=4.48), Cells(cell_length_ns(5.0))
    for piece in cells.of(reader):
        stations.add(piece, piece.end_ns)
    stations.flush()
    assert stations.counts["missing_component"] == 1
    return stations.counts["late"]


def test_files_that_overlap_are_one_record_of_the_ground(tmp_path: Path) -> None:
    """Two files that share ten seconds, and one given twice: each sample counts once."""
    early = b"".join(
        r for code, at_s in COMPONENTS.items() for r in packets(code, at_s, (130,), gaps_s=((25.0, 40.0),))
    )
    late = b"".join(r for code, at_s in COMPONENTS.items() for r in packets(code, at_s, (170,), gaps_s=((0.0, 15.0),)))
    (tmp_path / "early.mseed").write_bytes(early)
    (tmp_path / "late.mseed").write_bytes(late)
    names = ["late.mseed", "early.mseed", "late.mseed"]
    assert found(picked(tmp_path, *(tmp_path / name for name in names))) == expected()


def test_sds_tree_across_midnight(tmp_path: Path) -> None:
    """An SDS archive whose day ends in the middle of the data is one stream; a station with data only later joins."""
    midnight_ns = 1_700_006_400 * SECOND_NS
    start_ns = midnight_ns - 20 * SECOND_NS
    sds(tmp_path / "sds", "ONE", start_ns)
    sds(tmp_path / "sds", "TWO", start_ns + 30 * SECOND_NS)
    assert len(list((tmp_path / "sds").rglob("XX.*"))) == 9
    messages = picked(tmp_path, tmp_path / "sds")
    assert found(messages) == expected(["ONE"], start_ns=start_ns) | expected(
        ["TWO"], start_ns=start_ns + 30 * SECOND_NS
    )
    times = [one["time"] for one in messages]
    assert times == sorted(times)


def test_sds_days_that_are_not_wanted_are_not_opened(tmp_path: Path) -> None:
    """By its name a file of another station or day is passed over, whatever is in it."""
    sds(tmp_path / "sds", "ONE", START_NS)
    other = tmp_path / "sds" / "2023" / "XX" / "TWO" / "HHZ.D" / "XX.TWO..HHZ.D.2023.318"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"not miniSEED at all")
    tally = Tally()
    files = plan([tmp_path / "sds"], Selection(patterns=("XX.ONE",)), tally)
    assert ({file.path.name.split(".")[1] for file in files}, tally.unreadable) == ({"ONE"}, 0)
    assert plan([tmp_path / "sds"], Selection(start_ns=START_NS + 3 * 86_400 * SECOND_NS), Tally()) == []


@pytest.mark.parametrize("minutes", [4, 16])
def test_memory_does_not_grow_with_the_archive(tmp_path: Path, minutes: int) -> None:
    """However long the archive is, few records are decoded at a time and few files are open."""
    for minute in range(minutes):
        start_ns = START_NS + minute * DURATION_S * SECOND_NS
        for code in COMPONENTS:
            name = f"{minute:03d}-{code}.mseed"
            (tmp_path / name).write_bytes(b"".join(packets(code, (), (100,), start_ns=start_ns)))
    tally = Tally()
    reader = ArchiveReader(plan([tmp_path], Selection(), tally), Selection(), tally)
    cells = Cells(cell_length_ns(5.0))
    before = records_alive()
    most = pieces = 0
    for number, _ in enumerate(cells.of(reader)):
        pieces += 1
        if number % 40 == 0:
            most = max(most, records_alive() - before)
    assert tally.records == minutes * 3 * DURATION_S
    assert pieces >= tally.records
    assert most <= 60, "the records of two cells of three channels"
    assert reader.most_open <= 6
    assert cells.held == 0


def records_alive() -> int:
    """Records in memory; what failed before may hold some. (isinstance would wake lazy objects of other libraries.)"""
    return sum(type(one) is Record for one in gc.get_objects())


def test_cells_are_shorter_than_the_wait() -> None:
    """A cell is whole chunks, shorter than a station waits for a component, and never empty."""
    for wait_s in (0.0, 0.5, 1.0, 5.0, 60.0):
        length_ns = cell_length_ns(wait_s)
        assert length_ns % CHUNK_NS == 0
        assert length_ns == CHUNK_NS or length_ns < wait_s * 1e9
    assert cell_length_ns(5.0) == 7 * CHUNK_NS


def test_start_and_end_cut_samples(tmp_path: Path) -> None:
    """Only samples in the span are picked, wherever records begin: the same for any packetisation."""
    span = ["--start", "2023-11-14T22:13:35", "--end", "2023-11-14T22:13:46.5"]  # 15 s to 26.5 s of the data
    texts = set()
    for size in (50, 1000, 4000):
        path = tmp_path / "data.mseed"
        path.write_bytes(b"".join(records({code: [size] for code in COMPONENTS}, gaps=False)))
        texts.add(picked_text(tmp_path, *span, path))
        messages = picked(tmp_path, *span, path)
    assert len(texts) == 1
    assert found(messages) == {("ONE", p, START_NS + s * SECOND_NS) for p, s in (("P", 22), ("S", 24))}


def records(sizes: dict[str, list[int]], gaps: bool) -> list[bytes]:
    """The three components in records of the sizes given, with the gaps of this file or without."""
    return [
        record
        for code, at_s in COMPONENTS.items()
        for record in packets(code, at_s, sizes[code], gaps_s=GAPS[code] if gaps else ())
    ]


def sds(root: Path, station: str, start_ns: int) -> None:
    """``three_components`` as an SDS archive: each record in the file of the day that it starts on."""
    data = three_components(station, start_ns)
    offset = 0
    while offset < len(data):
        header = MS3Record.parse(data[offset : offset + 512])
        day = header.starttime_str()[:10]
        number = f"{(header.starttime // (86_400 * SECOND_NS)) - 19_357:03d}"  # 2023-01-01 is day 19,358 of 1970
        assert day.startswith("2023")
        code = header.sourceid.removeprefix(f"FDSN:XX_{station}__").replace("_", "")
        path = root / "2023" / "XX" / station / f"{code}.D" / f"XX.{station}..{code}.D.2023.{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data[offset : offset + 512])
        offset += 512


def test_the_data_reach_the_end(tmp_path: Path) -> None:
    """What is held at the end is worked off: a pulse whose probability was seen is picked though data end on it."""
    path = tmp_path / "data.mseed"
    both = packet("HHZ", pulses((12.0, 39.3)), 0) + packet("HHN", pulses((39.64,)), 0)
    path.write_bytes(both)
    at = {(p, START_NS + ms * 1_000_000) for p, ms in (("P", 12_000), ("P", 39_300), ("S", 39_640))}
    assert {pick[1:] for pick in found(picked(tmp_path, path))} == at
    assert max(P_AT_S + S_AT_S) < 39
