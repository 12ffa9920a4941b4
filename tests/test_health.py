"""Warnings about the health of training: when they are issued, and when they are repeated."""

import pytest

from deepfill_jax.train.health import COLLAPSED_PERIODS, WON_PERIODS, WORSE_VALIDATIONS, Health

HEALTHY, WON, COLLAPSED = (1.0, 0.9), (0.02, 0.04), (1.0, 1.0005)


def warnings_of(health, hinges, periods):
    """Returns the beginnings of the warnings over a number of equal log periods."""
    means = dict(zip(("hinge/real", "hinge/fake"), hinges, strict=True))
    return [text.partition(":")[0] for _ in range(periods) for text in health.training(means)]


@pytest.mark.parametrize(
    "sick, periods, warning",
    [
        (WON, WON_PERIODS, "The discriminator has won"),
        (COLLAPSED, COLLAPSED_PERIODS, "The discriminator does not tell real from completed"),
    ],
)
def test_warning_needs_several_periods_and_is_repeated_only_after_recovery(sick, periods, warning):
    health = Health(batch_size=16)
    assert warnings_of(health, HEALTHY, 20) == []
    assert warnings_of(health, sick, periods - 1) == []
    assert warnings_of(health, HEALTHY, 1) == []
    assert warnings_of(health, sick, periods - 1) == []
    assert warnings_of(health, sick, 30) == [warning]
    assert warnings_of(health, HEALTHY, 1) == []
    assert warnings_of(health, sick, periods) == [warning]


def test_small_loss_on_real_images_only_gives_no_warning():
    assert warnings_of(Health(batch_size=16), (0.02, 0.5), 20) == []


def test_small_batch_gives_one_warning_and_only_with_a_discriminator():
    assert warnings_of(Health(batch_size=7), HEALTHY, 3) == [
        "config.batch_size=7 is small for a discriminator"
    ]
    assert Health(batch_size=7).training({"loss/generator": 0.1}) == []


def warning_counts(health, *values):
    """Returns the number of warnings after each validation score."""
    return [len(health.validation(value)) for value in values]


def test_third_worse_validation_in_a_row_gives_a_warning():
    assert WORSE_VALIDATIONS == 3
    health = Health(batch_size=16)
    assert warning_counts(health, 9.0, 8.0, 8.1, 8.3, 8.5, 8.9) == [0, 0, 0, 0, 1, 0]
    assert warning_counts(health, 8.2, 8.4, 8.6, 8.8) == [0, 0, 0, 1]


def test_validation_near_the_best_one_gives_no_warning():
    assert warning_counts(Health(batch_size=16), 8.0, 8.01, 8.02, 8.03) == [0] * 4
    assert warning_counts(Health(batch_size=16), 8.0, 9.0, 8.5, 8.6, 8.4, 8.7) == [0] * 6
