"""Warnings during training: when they begin, and when they are told again."""

import pytest

from deepfill_jax.train.health import COLLAPSED_PERIODS, WON_PERIODS, WORSE_VALIDATIONS, Health

HEALTHY, WON, COLLAPSED = (1.0, 0.9), (0.02, 0.04), (1.0, 1.0005)


def tell(health, hinges, periods):
    """The warnings of some log periods, without the end of each."""
    means = dict(zip(("hinge/real", "hinge/fake"), hinges, strict=True))
    return [text.partition(":")[0] for _ in range(periods) for text in health.training(means)]


@pytest.mark.parametrize(
    "sick, periods, warning",
    [
        (WON, WON_PERIODS, "The discriminator has won"),
        (COLLAPSED, COLLAPSED_PERIODS, "The discriminator does not tell real from completed"),
    ],
)
def test_a_warning_needs_several_periods_and_comes_again_only_if_it_had_passed(
    sick, periods, warning
):
    health = Health(batch_size=16)
    assert tell(health, HEALTHY, 20) == []
    assert tell(health, sick, periods - 1) == []
    assert tell(health, HEALTHY, 1) == []
    assert tell(health, sick, periods - 1) == []
    assert tell(health, sick, 30) == [warning]
    assert tell(health, HEALTHY, 1) == []
    assert tell(health, sick, periods) == [warning]


def test_one_good_side_is_no_victory():
    assert tell(Health(batch_size=16), (0.02, 0.5), 20) == []


def test_a_small_batch_is_named_once_and_only_beside_a_discriminator():
    assert tell(Health(batch_size=7), HEALTHY, 3) == [
        "config.batch_size=7 is small for a discriminator"
    ]
    assert Health(batch_size=7).training({"loss/generator": 0.1}) == []


def scores(health, *values):
    return [len(health.validation(value)) for value in values]


def test_validation_that_gets_worse_is_told_at_the_third_time():
    assert WORSE_VALIDATIONS == 3
    health = Health(batch_size=16)
    assert scores(health, 9.0, 8.0, 8.1, 8.3, 8.5, 8.9) == [0, 0, 0, 0, 1, 0]
    assert scores(health, 8.2, 8.4, 8.6, 8.8) == [0, 0, 0, 1]


def test_validation_near_its_best_is_noise():
    assert scores(Health(batch_size=16), 8.0, 8.01, 8.02, 8.03) == [0, 0, 0, 0]
    assert scores(Health(batch_size=16), 8.0, 9.0, 8.5, 8.6, 8.4, 8.7) == [0, 0, 0, 0, 0, 0]
