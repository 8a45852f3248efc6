"""Sources: every address that params.yaml may name, fetched once into a content-addressed store."""

from stillroom.data.sources.fetching import fetch
from stillroom.data.sources.materialise import Snapshot, snapshot
from stillroom.data.sources.teacher import teacher_folder

__all__ = ["Snapshot", "fetch", "snapshot", "teacher_folder"]
