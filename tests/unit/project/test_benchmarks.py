"""The benchmarks' arithmetic, selection and JSON: everything short of measuring."""

import json
from pathlib import Path

import pytest

from benchmarks.bench import Bench
from benchmarks.catalogue import FIGURES, UnknownFigure, groups, select
from benchmarks.options import QUICK, Options, parse
from benchmarks.peers import Peers
from benchmarks.record import Record, compare, quantile
from benchmarks.run import main, with_peers, write_json
from benchmarks.samples import Sample, abi_entry, make_samples, read_samples, write_samples
from iidq.provenance.ethereum.registry import decode_entry
from iidq.provenance.ethereum.signature import recover_signer
from iidq.provenance.manifest import parse_manifest

CONTRACT_FIGURES = {
    *("floor_insert16", "floor_batch", "enqueue16", "enqueue256", "drain1", "drain2", "latency_p50_ms"),
    *("latency_p99_ms", "history", "delayed", "horizon", "mixed", "verify_cpu_ms", "verify_per_s", "http_bare"),
    *("http_submit", "http_get", "upload_gbps", "upload8_gbps", "sha256_gbps", "post_to_completed_p50_ms"),
    "post_to_completed_p99_ms",
}


def test_every_figure_of_the_contract_can_be_asked_for() -> None:
    """Each promised figure and group has a measurement."""
    assert {figure.name for figure in FIGURES} >= CONTRACT_FIGURES
    assert groups().keys() >= {"enqueue", "drain", "latency", "verify", "http", "upload"}


def test_no_two_figures_share_a_name() -> None:
    """A name belongs to a single figure, and no group hides a figure of another group."""
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names)
    for group, members in groups().items():
        assert group not in names or group in members


def test_every_reference_is_a_figure() -> None:
    """Each reference is an existing figure."""
    names = {figure.name for figure in FIGURES}
    references = [each for figure in FIGURES for each in figure.references.values() if isinstance(each, str)]
    assert references
    assert set(references) <= names


@pytest.mark.parametrize(
    ("figure", "reference"),
    [
        ("drain1", "floor_batch"),
        ("drain2", "floor_batch"),
        ("history", "drain1"),
        ("delayed", "drain1"),
        ("horizon", "drain1"),
        ("enqueue16", "floor_insert16"),
        ("enqueue256", "floor_insert16"),
        ("http_submit", "http_bare"),
        ("http_get", "http_bare"),
        ("upload_gbps", "sha256_gbps"),
        ("upload8_gbps", "sha256_gbps"),
    ],
)
def test_a_figure_brings_what_it_is_compared_with(figure: str, reference: str) -> None:
    """Selecting a figure also measures its reference, so the ratio comes from the same run."""
    assert {figure, reference} <= {each.name for each in select([figure])}


def test_a_group_brings_all_its_figures() -> None:
    """A group's name selects the group's members."""
    assert {"latency_p50_ms", "latency_p99_ms"} == {figure.name for figure in select(["latency"])}


def test_nothing_named_means_everything() -> None:
    """Without an argument all figures are measured, in the catalogue's order."""
    assert select([]) == list(FIGURES)


def test_an_unknown_figure_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt figure ends with exit code 2 and the known names."""
    with pytest.raises(UnknownFigure):
        select(["drain3"])
    assert main(["drain3"]) == 2
    assert "drain: drain1, drain2" in capsys.readouterr().err


def test_the_median_stands_for_the_runs() -> None:
    """An outlier does not move a figure: the value is the median."""
    assert Record("drain1", "jobs/s", (10.0, 1000.0, 11.0)).value == 11.0


def test_a_record_needs_a_run() -> None:
    """A figure without a measurement cannot be reported."""
    with pytest.raises(ValueError, match="no runs"):
        Record("drain1", "jobs/s", ())


def test_ratios_are_value_by_reference() -> None:
    """A ratio divides medians; a number is a reference too; a reference without a value gives no ratio."""
    records = [
        Record("floor_batch", "jobs/s", (40.0,)),
        Record("drain1", "jobs/s", (10.0, 30.0, 20.0)),
        Record("zero", "ms", (0.0,)),
    ]
    references: dict[str, dict[str, str | float]] = {
        "drain1": {"floor": "floor_batch", "ideal": 10.0, "absent": "history", "zero": "zero"}
    }
    floor, drain, _ = compare(records, references)
    assert floor.ratios == {}
    assert drain.ratios == {"floor": 0.5, "ideal": 2.0}


def test_a_quantile_is_one_of_the_values() -> None:
    """A quantile is the value of the nearest rank, for any order; without values there is no quantile."""
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_the_json_has_the_form_that_readers_rely_on(tmp_path: Path) -> None:
    """The JSON is a list with an object per figure: figure, value, unit, min, max, runs, ratios."""
    path = tmp_path / "figures.json"
    write_json([Record("drain1", "jobs/s", (12_345.6, 1.23456), {"floor_batch": 0.33333})], path)
    assert json.loads(path.read_text()) == [
        {
            "figure": "drain1",
            "unit": "jobs/s",
            "value": 6173,
            "min": 1.235,
            "max": 12346,
            "runs": [12346, 1.235],
            "ratios": {"floor_batch": 0.3333},
        }
    ]


def test_sizes_come_from_the_command_line() -> None:
    """An option outweighs --quick, which outweighs the published sizes."""
    asked = parse(["drain", "--quick", "--jobs", "77", "--http-seconds", "0.5"], "")
    assert asked.figures == ("drain",)
    assert (asked.options.jobs, asked.options.http_seconds, asked.options.runs) == (77, 0.5, QUICK.runs)
    assert parse([], "").options == Options()


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--runs", "-1"], ["--jobs", "many"], ["--peers", "bullmq"]])
def test_a_senseless_size_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A size that is no positive number, or a peer without a folder, ends with exit code 2 and a reason."""
    with pytest.raises(SystemExit) as ended:
        parse(arguments, "")
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_peer_stands_beside_the_figure_it_can_do() -> None:
    """A peer's figure becomes a reference of iidq's, if the peer has the figure."""
    peers = Peers(None, ["bullmq", "oban"], Bench.__new__(Bench), ["drain1", "horizon", "history", "mixed"])
    assert [figure.name for figure in peers.figures] == ["bullmq.drain1", "oban.drain1", "oban.horizon", "oban.history"]
    references = with_peers({name: {} for name in ("drain1", "horizon", "history", "mixed")}, peers.figures)
    assert references["drain1"] == {"bullmq": "bullmq.drain1", "oban": "oban.drain1"}
    assert references["mixed"] == {}


def test_samples_are_verifications_that_come_out_ok(tmp_path: Path) -> None:
    """A sample's manifest is signed for the sample's content by the creator of the registry entry."""
    path = tmp_path / "samples.jsonl"
    write_samples(make_samples(2), path)
    first, second = read_samples(path)
    assert first.content_hash != second.content_hash
    _assert_consistent(first)


def _assert_consistent(sample: Sample) -> None:
    manifest = parse_manifest(sample.manifest.encode())
    entry = decode_entry(bytes.fromhex(abi_entry(sample)[2:]), sample.content_hash)
    assert manifest.content_hash == sample.content_hash
    assert recover_signer(manifest.content_hash, manifest.signature) == sample.creator == entry.creator
    assert entry.manifest_uri == sample.manifest_uri
