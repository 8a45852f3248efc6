from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stillroom.export.onnx import export_onnx, open_graph
from stillroom.export.rungs import Quantiser
from stillroom.students.bilstm import BilstmStudent


@pytest.fixture
def student() -> BilstmStudent:
    torch.manual_seed(0)
    return BilstmStudent(20, 4, 5, 3).eval()


def test_both_directions_are_those_of_a_packed_lstm(student: BilstmStudent) -> None:
    packed = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
    packed.load_state_dict(
        student.onward.state_dict() | {f"{name}_reverse": weight for name, weight in student.back.state_dict().items()}
    )
    lengths = torch.tensor([6, 1, 3, 4])
    mask = (torch.arange(6) < lengths[:, None]).long()
    ids = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        sequence = pack_padded_sequence(student.table(ids), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(packed(sequence)[0], batch_first=True, padding_value=-torch.inf)
        torch.testing.assert_close(student(ids, mask), student.head(states.amax(dim=1)))


def test_a_text_without_a_token_has_the_least_of_states(student: BilstmStudent) -> None:
    with torch.inference_mode():
        logits = student(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long))
        torch.testing.assert_close(logits, student.head(torch.full((1, 10), -1.0)))


def test_a_quantiser_finds_the_weights_of_both_directions(student: BilstmStudent, tmp_path: Path) -> None:
    export_onnx(student, tmp_path / "model.onnx")
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    weights = {weight.name for weight in graph.initializer}
    lstms = [node for node in graph.node if node.op_type == "LSTM"]
    assert len(lstms) == 2
    assert all(set(node.input[1:4]) <= weights for node in lstms)
    assert sum(len(weight.raw_data) for weight in graph.initializer) < 4 * 1.5 * sum(
        weight.numel() for weight in student.parameters()
    ), "each once"


def test_the_dynamic_rung_makes_both_directions_int8(student: BilstmStudent, tmp_path: Path) -> None:
    export_onnx(student, tmp_path / "model.onnx")
    quantiser = Quantiser(tmp_path / "model.onnx", tmp_path, lambda: pytest.fail("needs no rows"))
    for rung in ("dynamic_int8", "dynamic_int8_per_channel"):
        quantiser.make(rung, tmp_path / f"{rung}.onnx")
        operators = Counter(node.op_type for node in onnx.load(str(tmp_path / f"{rung}.onnx")).graph.node)
        assert operators["DynamicQuantizeLSTM"] == 2
        assert not operators["LSTM"]


def test_every_export_of_a_process_reads_texts_of_any_length(student: BilstmStudent, tmp_path: Path) -> None:
    ids = torch.randint(0, 20, (2, 17), generator=torch.Generator().manual_seed(2))
    for number in range(3):
        export_onnx(student.eval(), tmp_path / f"{number}.onnx")
        found = open_graph(tmp_path / f"{number}.onnx", 1).run(
            None, {"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy()}
        )
        torch.testing.assert_close(torch.from_numpy(found[0]), student(ids, torch.ones_like(ids)), atol=1e-4, rtol=0)
        student.train()(ids, torch.ones_like(ids)).sum().backward()
