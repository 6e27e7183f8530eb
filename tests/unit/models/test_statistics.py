"""Statistics of replicas add up."""

from dataclasses import fields

from trygon.models.statistics import DURATIONS, BatchStatistics, Duration, ModelStatistics


def test_a_duration_counts_events_and_their_time() -> None:
    duration = Duration()
    duration.add(5)
    duration.add(7, count=2)
    assert duration == Duration(3, 12)


def test_merging_adds_every_counter() -> None:
    one, two = ModelStatistics("m", 1), ModelStatistics("m", 1)
    for factor, statistics in ((1, one), (10, two)):
        statistics.inference_count = 3 * factor
        statistics.execution_count = 2 * factor
        for index, name in enumerate(DURATIONS):
            getattr(statistics, name).add(index * factor, count=factor)
    one.merge(two)
    assert (one.inference_count, one.execution_count) == (33, 22)
    for index, name in enumerate(DURATIONS):
        assert getattr(one, name) == Duration(11, 11 * index)


def test_merging_keeps_the_latest_inference() -> None:
    one, two = ModelStatistics("m", 1, last_inference=5), ModelStatistics("m", 1, last_inference=3)
    one.merge(two)
    assert one.last_inference == 5
    two.merge(one)
    assert two.last_inference == 5


def test_batches_merge_by_their_rows() -> None:
    one = ModelStatistics("m", 1, batches={1: BatchStatistics(compute_infer=Duration(1, 10))})
    two = ModelStatistics(
        "m", 1, batches={1: BatchStatistics(compute_infer=Duration(2, 5)), 4: BatchStatistics(Duration(1, 1))}
    )
    one.merge(two)
    assert one.batches[1].compute_infer == Duration(3, 15)
    assert one.batches[4].compute_input == Duration(1, 1)


def test_merging_leaves_the_other_statistics_alone() -> None:
    one = ModelStatistics("m", 1)
    two = ModelStatistics("m", 1, batches={4: BatchStatistics(Duration(1, 1))})
    one.merge(two)
    one.merge(two)
    assert two.batches[4].compute_input == Duration(1, 1)
    assert one.batches[4].compute_input == Duration(2, 2)


def test_every_duration_of_a_model_is_listed() -> None:
    assert set(DURATIONS) == {field.name for field in fields(ModelStatistics) if field.type is Duration}
