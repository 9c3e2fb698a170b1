"""The version of the installed distribution, for `--version` and for what programs say of themselves."""

from importlib.metadata import PackageNotFoundError, version


def installed_version(otherwise: str = "unknown (not installed)") -> str:
    """Version of the distribution `onset`; ``otherwise`` where it runs from a folder without being installed."""
    try:
        return version("onset")
    except PackageNotFoundError:
        return otherwise
