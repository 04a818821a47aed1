"""There is nothing to install: this package's names stand for the standard library's."""


def install() -> None:
    """Do nothing."""


def uninstall() -> None:
    """Do nothing."""
