"""Errors named by what a program does about them."""


class OnsetError(Exception):
    """Base of every error that is the user's to mend: its text names the file, the key and the mend."""


class ConfigError(OnsetError):
    """A setting is wrong: refuse to start."""


class BundleError(OnsetError):
    """A model bundle is missing, damaged or contradicts itself: refuse to start."""
