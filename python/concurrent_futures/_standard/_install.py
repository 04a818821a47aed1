"""Stand-ins for `install`: this package's names stand for the standard library's here."""


def install() -> None:
    """Do nothing."""


def uninstall() -> None:
    """Do nothing."""
