"""The exception tree. A message says what came, what was expected and what to do."""


class DPoserError(Exception):
    """Base of every error that a user can cause."""


class ConfigError(DPoserError):
    """A parameter is unknown, has the wrong type or is out of range."""


class ModelFileError(DPoserError):
    """A body model file is missing or does not hold what an SMPL-X file holds."""


class CheckpointError(DPoserError):
    """A prior checkpoint is missing, damaged, or made for another part or dimension."""


class ObservationError(DPoserError):
    """Keypoints, camera or time stamps cannot be used."""


class MediaError(DPoserError):
    """A video or recording is missing, empty or unreadable."""


class StorageError(DPoserError):
    """A file cannot be written: the disk is full, or the place is not ours."""
