"""The errors a user can cause. Each message is one sentence: what, expected, what to type."""


class OpenMOFIError(Exception):
    """Reports a user's mistake; the command line prints it and exits 1, without a traceback."""


class SettingsError(OpenMOFIError):
    """Reports an unknown or impossible setting."""


class InputError(OpenMOFIError):
    """Reports an input that is missing, empty or not in the expected format."""


class MismatchError(OpenMOFIError):
    """Reports outputs of an earlier run that were made from other inputs or settings."""
