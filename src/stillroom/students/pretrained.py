"""The pretrained family: another, smaller encoder, pretrained by itself, which learns the teacher's answers.

The usual student of a large encoder: what pretraining and what distilling give add up (Turc et al., Well-read students
learn better, arXiv 1908.08962). It reads texts with its own tokeniser, trimmed, and its head starts from nothing. Cost:
as that of family sliced, of its own layers.
"""

from typing import Any

from stillroom.student_params import PretrainedParams
from stillroom.students import sliced
from stillroom.students.family import Cost
from stillroom.students.material import Material
from stillroom.teacher.model import EncoderClassifier, layers_of

SPECIAL_TOKENS = sliced.SPECIAL_TOKENS
describe, load, graph, batches = sliced.describe, sliced.load, sliced.graph, sliced.batches


def cost(material: Material, settings: PretrainedParams) -> Cost:
    """Its own layers and what stands around them, over the kept rows of its token table."""
    return sliced.cost_of(material, _layers(material, settings))


def build(material: Material, settings: PretrainedParams) -> EncoderClassifier:
    """The checkpoint's first layers over the kept rows of its token table, with a head of random weights.

    Raises InputError if the checkpoint has fewer layers than asked for.
    """
    student = sliced.cut(material, _layers(material, settings), "the checkpoint")
    student.head.reset_parameters()
    return student


def learner(student: EncoderClassifier, settings: PretrainedParams, total_steps: int, seed: int) -> Any:
    """What trains it."""
    return sliced.EncoderLearner(student, settings, total_steps)


def _layers(material: Material, settings: PretrainedParams) -> int:
    _, _, layers = layers_of(material.teacher.encoder)
    return settings.layers or len(layers)
