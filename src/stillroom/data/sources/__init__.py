"""Sources: every address that params.yaml may name, fetched once into a content-addressed store."""

from stillroom.data.sources.fetching import digest_of, fetch
from stillroom.data.sources.materialise import Snapshot, snapshot
from stillroom.data.sources.teacher import checkpoint_folder, teacher_folder

__all__ = ["Snapshot", "checkpoint_folder", "digest_of", "fetch", "snapshot", "teacher_folder"]
