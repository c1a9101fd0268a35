from harness.contract.errors import (
    EXIT_DEFECT,
    EXIT_OK,
    EXIT_PARTLY_SCORED,
    BadSamples,
    EnvironmentFailure,
    MissingAsset,
    UserError,
)


def test_the_exit_codes_are_the_documented_ones():
    kinds = (UserError, BadSamples, MissingAsset, EnvironmentFailure)
    assert [kind.exit_code for kind in kinds] == [2, 3, 4, 6]
    assert (EXIT_OK, EXIT_DEFECT, EXIT_PARTLY_SCORED) == (0, 1, 5)
