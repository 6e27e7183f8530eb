"""The repository index: wanted models with their states, all others as not loaded."""

from pathlib import Path

from trygon.deployments.index import index_rows
from trygon.models.repository import ModelRepository
from trygon.models.routing import RoutedVersion
from trygon.models.versions import ModelState, VersionStatus


def test_what_is_wanted_comes_with_its_state_and_the_rest_as_unloaded(tmp_path: Path) -> None:
    for name in ("wanted", "idle"):
        for version in ("1", "2", "10"):
            (tmp_path / name / version).mkdir(parents=True)
            (tmp_path / name / version / "model.onnx").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.pbtxt").write_text("max_batch_size: many")
    table = [RoutedVersion(VersionStatus("wanted", 10, ModelState.READY), "onnx-cpu")]
    rows = index_rows(table, ModelRepository([tmp_path]).scan())
    assert [(row.model, row.version, row.state) for row in rows] == [
        ("broken", 0, ModelState.UNAVAILABLE),
        ("idle", 1, ModelState.UNAVAILABLE),
        ("idle", 2, ModelState.UNAVAILABLE),
        ("idle", 10, ModelState.UNAVAILABLE),
        ("wanted", 10, ModelState.READY),
    ]
    assert [row.reason for row in rows[1:4]] == ["unloaded"] * 3
    assert "config.pbtxt" in rows[0].reason
