"""What the commands of several packages ask of their options, before anything is begun."""

import typer

DAY = 86_400.0  # seconds


def seconds(value: float) -> float:
    """Returns a duration given on the command line. Raises: typer.BadParameter: It is not above 0, or above a day."""
    if not 0.0 < value <= DAY:  # NaN is neither
        raise typer.BadParameter(f"{value:g} is no duration from above 0 to {DAY:g} seconds")
    return value
