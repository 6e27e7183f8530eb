"""Poll mode: the repository is followed, whatever happens to it."""

import os
import shutil
from typing import Any

from trygon.settings import ModelControlMode

GARBAGE = b"this is no model"


async def test_what_comes_is_loaded_and_what_goes_is_unloaded(cluster: Any) -> None:
    await cluster.start(ModelControlMode.POLL)
    await cluster.until(lambda states: states == {"digits_onnx 1": "READY"})
    cluster.write("fresh", 1)
    await cluster.until(lambda states: states.get("fresh 1") == "READY")
    cluster.write("fresh", 2)
    await cluster.until(lambda states: states.get("fresh 2") == "READY" and "fresh 1" not in states)
    shutil.rmtree(cluster.repository / "fresh")
    await cluster.until(lambda states: states == {"digits_onnx 1": "READY"})


async def test_a_model_that_breaks_serves_on_and_one_that_heals_has_no_fault_left(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.POLL)
    await cluster.until(lambda states: states == {"digits_onnx 1": "READY"})
    config = cluster.repository / "digits_onnx" / "config.pbtxt"
    sound = config.read_bytes()
    config.write_text("max_batch_size: many")
    routes = await control.routes()
    while not routes.rows[0].status.reason:
        routes = await control.watch(routes.term, routes.revision) or routes
    assert "config.pbtxt" in routes.rows[0].status.reason
    assert str(routes.rows[0].status.state) == "READY"
    assert routes.missing == {}
    config.write_bytes(sound)
    while routes.rows[0].status.reason:
        routes = await control.watch(routes.term, routes.revision) or routes
    assert str(routes.rows[0].status.state) == "READY"


async def test_a_broken_file_is_tried_again_once_it_changes(cluster: Any) -> None:
    folder = cluster.write("nonsense", 1, content=GARBAGE)
    await cluster.start(ModelControlMode.POLL)
    await cluster.until(lambda states: states.get("nonsense 1") == "UNAVAILABLE")
    assert "nonsense" in await cluster.missing()
    cluster.write("nonsense", 1)
    os.utime(folder / "1" / "model.onnx", ns=(1, 1))
    await cluster.until(lambda states: states.get("nonsense 1") == "READY")
    assert await cluster.missing() == {}


async def test_models_of_a_repository_that_cannot_be_read_are_not_gone(cluster: Any) -> None:
    control = await cluster.start(ModelControlMode.POLL)
    await cluster.until(lambda states: states == {"digits_onnx 1": "READY"})
    moved = cluster.repository.rename(cluster.root / "moved")
    await control.statistics()
    assert await cluster.states() == {"digits_onnx 1": "READY"}
    cluster.write("fresh", 1)
    shutil.copytree(moved / "digits_onnx", cluster.repository / "digits_onnx")
    await cluster.until(lambda states: states.get("fresh 1") == "READY")


async def test_a_model_without_a_runner_says_so_until_it_has_one(cluster: Any) -> None:
    folder = cluster.write("picky", 1, config='backend: "onnxruntime" instance_group { kind: KIND_GPU }')
    control = await cluster.start(ModelControlMode.POLL)
    await cluster.until(lambda states: states.get("digits_onnx 1") == "READY")
    assert "onnx-cuda" in (await cluster.missing())["picky"]
    revision = (await control.routes()).revision
    await control.statistics()
    assert (await control.routes()).revision == revision
    (folder / "config.pbtxt").unlink()
    await cluster.until(lambda states: states.get("picky 1") == "READY")
