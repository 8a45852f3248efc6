import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from stillroom.batching import load_tokeniser, tokenise
from stillroom.errors import InputError
from stillroom.problem import ProblemType
from stillroom.teacher.inference import predict
from stillroom.teacher.model import (
    TOKENISER,
    Description,
    EncoderClassifier,
    ReadyClassifier,
    count_params,
    load_encoder,
    load_ready,
    load_teacher,
    pool,
    read_description,
    save_teacher,
)
from stillroom.teacher.tokeniser import read_tokeniser
from tests.toys import LABELS, publish_teacher, tiny_config, toy_rows, write_checkpoint

TEXTS = toy_rows(20, seed=8).text


def tokens_of(folder: Path, max_length: int = 32) -> Any:
    return tokenise(load_tokeniser(folder / TOKENISER, max_length), TEXTS, max_length)


def classifier(folder: Path, checkpoint: Path, labels: tuple[str, ...], **changes: Any) -> Path:
    """A checkpoint that classifies `labels`, in this order."""
    torch.manual_seed(4)
    names = dict(enumerate(labels))
    tokeniser = read_tokeniser(checkpoint, 32)
    config = tiny_config(
        tokeniser.get_vocab_size(), id2label=names, label2id={v: k for k, v in names.items()}, **changes
    )
    return write_checkpoint(folder, BertForSequenceClassification(config), tokeniser)


def description(**changes: Any) -> Description:
    told = {
        "name": "toy",
        "params": 1,
        "labels": LABELS,
        "pooling": "mean",
        "max_length": 32,
        "temperature": 1.25,
        "precision": "fp32",
        "pad": 0,
        "metrics": {"validation": {"accuracy": 0.5}},
        "history": [{"epoch": 1, "train_loss": 0.5}],
    }
    return Description.model_validate(told | changes)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_published_teacher_comes_back_with_equal_logits(tmp_path: Path, tiny_checkpoint: Path, pooling: str) -> None:
    torch.manual_seed(0)
    model = EncoderClassifier(load_encoder(tiny_checkpoint), 32, 3, pooling).eval()  # type: ignore[arg-type]
    save_teacher(tmp_path, model, read_tokeniser(tiny_checkpoint, 32), description(pooling=pooling))
    loaded, told = load_teacher(tmp_path)
    assert told == description(pooling=pooling)
    assert not loaded.training
    tokens = tokens_of(tmp_path)
    np.testing.assert_allclose(predict(loaded, tokens, 0, 300), predict(model, tokens, 0, 300), atol=1e-6)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_published_teacher_is_tensors_and_json_alone(tmp_path: Path, tiny_checkpoint: Path) -> None:
    publish_teacher(tmp_path / "teacher", tiny_checkpoint)
    names = {path.name for path in (tmp_path / "teacher").iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json", "teacher.json"}
    for path in (tmp_path / "teacher").glob("*.json"):
        assert json.loads(path.read_text())
    load_file(tmp_path / "teacher" / "model.safetensors")


def test_a_teacher_is_loaded_without_running_what_pickle_would_run(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = publish_teacher(tmp_path / "teacher", tiny_checkpoint)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cbuiltins\nexit\n(tR.")
    assert load_teacher(folder)
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(InputError, match="not a checkpoint that transformers loads"):
        load_encoder(broken)


def test_the_description_of_another_format_is_wrong_input(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = publish_teacher(tmp_path / "teacher", tiny_checkpoint)
    raw = json.loads((folder / "teacher.json").read_text())
    for wrong in (raw | {"format": 2}, raw | {"labels": None}, {}, []):
        (folder / "teacher.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"teacher\.json: not the description of a teacher") as caught:
            read_description(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "no config"])
def test_a_published_teacher_that_is_not_whole_is_wrong_input(
    tmp_path: Path, tiny_checkpoint: Path, damage: str
) -> None:
    folder = publish_teacher(tmp_path / "teacher", tiny_checkpoint)
    weights = folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "other":
        save_file({"other": torch.zeros(2)}, weights)
    else:
        (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"teacher: not a whole teacher \(.*\); run the stage teach again") as caught:
        load_teacher(folder)
    assert "\n" not in str(caught.value)


def test_pooling_by_mean_leaves_padding_out_and_by_cls_takes_the_first() -> None:
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert torch.equal(pool(hidden, mask, "mean"), torch.stack([hidden[0, :2].mean(0), hidden[1].mean(0)]))
    assert torch.equal(pool(hidden, mask, "cls"), hidden[:, 0])
    assert torch.equal(pool(hidden, torch.zeros_like(mask), "mean"), torch.zeros(2, 3))


def test_dropout_is_that_of_fine_tuning_and_nothing_at_inference(tiny_checkpoint: Path) -> None:
    for wanted in (0.0, 0.3):
        found = {
            module.p
            for module in load_encoder(tiny_checkpoint, wanted).modules()
            if isinstance(module, torch.nn.Dropout)
        }
        assert found == {wanted}


def test_a_ready_checkpoint_answers_in_the_order_of_the_data(tmp_path: Path, tiny_checkpoint: Path) -> None:
    permuted = ("refund", "delivery", "login")
    folder = classifier(tmp_path / "ready", tiny_checkpoint, permuted)
    tokens = tokens_of(folder)
    found = predict(load_ready(folder, LABELS, "single_label"), tokens, 0, 300)
    raw = predict(load_ready(folder, permuted, "single_label"), tokens, 0, 300)
    for column, label in enumerate(LABELS):
        np.testing.assert_array_equal(found[:, column], raw[:, permuted.index(label)])
    assert not np.allclose(found, raw)
    with torch.inference_mode():
        whole = BertForSequenceClassification.from_pretrained(folder)
        ids, mask = tokens.padded(np.arange(len(TEXTS)), 0)
        logits = whole.eval()(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
    np.testing.assert_allclose(raw, logits.numpy(), atol=1e-5)


def test_a_ready_teacher_is_published_and_loaded_in_the_order_of_the_data(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder = classifier(tmp_path / "ready", tiny_checkpoint, ("refund", "delivery", "login"))
    model = load_ready(folder, LABELS, "single_label")
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    save_teacher(teacher, model, read_tokeniser(folder, 32), description(ready=True))
    loaded, _ = load_teacher(teacher)
    assert isinstance(loaded, ReadyClassifier)
    tokens = tokens_of(teacher)
    np.testing.assert_allclose(predict(loaded, tokens, 0, 300), predict(model, tokens, 0, 300), atol=1e-6)


def test_a_checkpoint_with_another_number_of_labels_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = classifier(tmp_path / "ready", tiny_checkpoint, (*LABELS, "fourth"))
    with pytest.raises(InputError, match=r"gives 4 labels, the data have 3; set teacher\.fine_tune to true"):
        load_ready(folder, LABELS, "single_label")


@pytest.mark.parametrize("labels", [("delivery", "login", "Refund"), ("LABEL_0", "LABEL_1", "LABEL_2")])
def test_a_checkpoint_with_other_labels_is_refused_with_those_it_lacks(
    tmp_path: Path, tiny_checkpoint: Path, labels: tuple[str, ...]
) -> None:
    folder = classifier(tmp_path / "ready", tiny_checkpoint, labels)
    with pytest.raises(InputError, match=r"the checkpoint's labels lack .*refund"):
        load_ready(folder, LABELS, "single_label")


def test_an_encoder_without_a_head_is_not_ready(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    names = {str(index): label for index, label in enumerate(LABELS)}
    (folder / "config.json").write_text(json.dumps(config | {"id2label": names}))
    with pytest.raises(InputError, match=r"lack 2 tensors of BertForSequenceClassification, classifier\.bias first"):
        load_ready(folder, LABELS, "single_label")


def test_an_encoder_whose_weights_lack_tensors_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "partial"))
    weights = load_file(folder / "model.safetensors")
    partial = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(partial, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"its weights lack \d+ tensors of BertModel, encoder\.layer\.1\."):
        load_encoder(folder)


def test_an_encoder_whose_weights_lack_the_pooler_alone_is_whole(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "headless"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder)


@pytest.mark.parametrize("damage", ["cut", "garbage", "no config", "broken config", "other sizes", "unknown type"])
def test_a_damaged_checkpoint_is_wrong_input_in_one_line(tmp_path: Path, tiny_checkpoint: Path, damage: str) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "damaged"))
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "garbage":
        weights.write_bytes(b"garbage" * 100)
    elif damage == "no config":
        config.unlink()
    elif damage == "broken config":
        config.write_text("{")
    elif damage == "other sizes":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 64}))
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "unheard-of"}))
    with pytest.raises(InputError, match="damaged: not a checkpoint that transformers loads") as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_shared_count_once() -> None:
    shared = torch.nn.Linear(4, 4)
    assert count_params(torch.nn.Sequential(shared, shared)) == 20


def test_a_config_of_bert_is_what_it_was(tmp_path: Path, tiny_checkpoint: Path) -> None:
    publish_teacher(tmp_path, tiny_checkpoint)
    published, brought = BertConfig.from_pretrained(tmp_path), BertConfig.from_pretrained(tiny_checkpoint)
    for name in ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings", "pad_token_id"):
        assert getattr(published, name) == getattr(brought, name)


def test_a_teacher_of_another_size_than_its_labels_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = publish_teacher(tmp_path / "teacher", tiny_checkpoint)
    raw = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps(raw | {"labels": ["a", "b"]}))
    with pytest.raises(InputError, match=r"the teacher gives 3 outputs, its teacher\.json names 2 labels"):
        load_teacher(folder)


@pytest.mark.parametrize(("told", "wanted"), [("multi_label", "single_label"), ("single_label", "multi_label")])
def test_a_ready_checkpoint_of_another_problem_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, told: str, wanted: ProblemType
) -> None:
    folder = classifier(tmp_path / "ready", tiny_checkpoint, LABELS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": f"{told}_classification"}))
    with pytest.raises(InputError, match=f"trained for {told}_classification, the data are {wanted}"):
        load_ready(folder, LABELS, wanted)
