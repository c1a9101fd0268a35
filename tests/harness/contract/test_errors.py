import pytest

from harness.contract.errors import (
    EXIT_DEFECT,
    EXIT_NOT_COMPARABLE,
    EXIT_OK,
    EXIT_PARTLY_SCORED,
    EXIT_STATUSES,
    EXPLAINED_STATUSES,
    BadSamples,
    EnvironmentFailure,
    MissingAsset,
    UserError,
    describe_statuses,
)


def test_the_exit_statuses_never_change():
    """Scripts go by them."""
    kinds = (UserError, BadSamples, MissingAsset, EnvironmentFailure)
    assert [kind.exit_code for kind in kinds] == [2, 3, 4, 6] == list(EXPLAINED_STATUSES)
    assert (EXIT_OK, EXIT_DEFECT, EXIT_PARTLY_SCORED, EXIT_NOT_COMPARABLE) == (0, 1, 5, 7)
    assert list(EXIT_STATUSES) == [0, 1, 2, 3, 4, 5, 6, 7, 75, 130]


def test_help_texts_are_made_from_the_table():
    assert describe_statuses(0, 2) == "Exit status: 0 done; 2 wrong usage or input."
    with pytest.raises(KeyError):
        describe_statuses(8)
