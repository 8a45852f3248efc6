import numpy as np
import torch
from torch import nn

from stillroom.students.cnn import CnnStudent


def student_of(widths: tuple[int, ...]) -> CnnStudent:
    torch.manual_seed(0)
    return CnnStudent(20, 4, 5, widths, 3).eval()


def test_filters_are_convolutions_that_read_zeros_after_the_text() -> None:
    student = student_of((1, 3))
    ids = torch.tensor([[4, 9, 2, 7, 7, 1]])
    vectors = student.table(ids).transpose(1, 2)
    found = []
    for width, filters in zip(student.widths, student.filters, strict=True):
        assert isinstance(filters, nn.Linear)
        weight = filters.weight.view(5, width, 4).transpose(1, 2)
        heard = nn.functional.conv1d(nn.functional.pad(vectors, (0, width - 1)), weight, filters.bias)
        found.append(heard.relu().amax(dim=2))
    expected = student.head(torch.cat(found, dim=1))
    torch.testing.assert_close(student(ids, torch.ones_like(ids)), expected)


def test_a_phrase_counts_wherever_it_stands() -> None:
    student = student_of((2,))
    with torch.no_grad():
        student.table.weight[0] = 0
        student.filters[0].bias.zero_()  # type: ignore[union-attr]
        mask = torch.ones(2, 6, dtype=torch.long)
        one, other = student(torch.tensor([[0, 3, 8, 0, 0, 0], [0, 0, 0, 3, 8, 0]]), mask)
    torch.testing.assert_close(one, other)


def test_of_a_text_without_a_token_every_filter_finds_nothing() -> None:
    student = student_of((2, 3))
    with torch.inference_mode():
        logits = student(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long))
    np.testing.assert_array_equal(logits, student.head.bias.detach().expand(2, 3))


def test_padding_never_wins_though_no_filter_is_glad_of_the_text() -> None:
    student = student_of((2,))
    with torch.inference_mode():
        student.table.weight.fill_(1)
        student.filters[0].weight.fill_(-1)  # type: ignore[union-attr]
        student.filters[0].bias.fill_(1)  # type: ignore[union-attr]
        alone = student(torch.tensor([[3, 3]]), torch.tensor([[1, 1]]))
        beside = student(torch.tensor([[3, 3, 0, 0]]), torch.tensor([[1, 1, 0, 0]]))
    # of zeros alone a filter would find its bias
    assert torch.equal(alone, beside)
    assert torch.equal(alone[0], student.head.bias)
