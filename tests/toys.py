"""Toys that train in a second: texts of three topics, a tokeniser, an encoder, a workspace around them."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom import layout
from stillroom.data.cases import FILE, NONE, write_cases
from stillroom.data.examples import Examples
from stillroom.data.manifest import DataSource, FileSource
from stillroom.data.splits import Rows, write_splits
from stillroom.data.splitting import Splits
from stillroom.files import file_digests, tree_digest, write_json
from stillroom.params import Params, validate
from stillroom.params_file import load_params, write_yaml

LABELS = ("delivery", "login", "refund")
_TOPICS = (
    ["parcel", "courier", "tracking", "shipped", "doorstep", "postman", "delayed", "arrival"],
    ["password", "account", "locked", "username", "sign", "browser", "code", "reset"],
    ["money", "returned", "receipt", "charged", "bank", "payment", "invoice", "twice"],
)
_NOISE = [
    "the",
    "a",
    "my",
    "of",
    "to",
    "please",
    "help",
    "today",
    "again",
    "why",
    "when",
    "could",
    "you",
    "it",
]
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def toy_rows(n: int, seed: int, first_row: int = 0) -> Rows:
    """n rows whose topic words tell the class; lengths from 4 to 37 words, no two texts equal."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % len(LABELS)).astype(np.int64)
    texts: list[str] = []
    for number, label in enumerate(labels):
        told = generator.choice(_TOPICS[label], size=int(generator.integers(2, 7)))
        noise = generator.choice(_NOISE, size=int(generator.choice([1, 3, 6, 30], p=[0.3, 0.3, 0.3, 0.1])))
        words = generator.permutation(np.concatenate([told, noise]))
        texts.append(" ".join([*words, f"n{first_row + number}"]))
    return Rows(np.arange(first_row, first_row + n, dtype=np.int64), texts, labels)


def several_topics(n: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """n texts of any number of topics, none included, and the labels of each; no two texts equal."""
    generator = np.random.default_rng(seed)
    texts: list[str] = []
    labels: list[list[str]] = []
    for number in range(n):
        chosen = [topic for topic in range(len(LABELS)) if generator.random() < 0.4]
        told = [word for topic in chosen for word in generator.choice(_TOPICS[topic], size=3)]
        noise = generator.choice(_NOISE, size=int(generator.integers(1, 5)))
        texts.append(" ".join([*generator.permutation([*told, *noise]), f"s{seed}n{number}"]))
        labels.append([LABELS[topic] for topic in chosen])
    return texts, labels


def toy_tokeniser(texts: Sequence[str]) -> Any:
    """A WordPiece tokeniser of 220 pieces: words that the texts hold twice or more, characters, and pairs of them.

    The trainer of tokenizers settles ties otherwise in every process; here a seed gives one teacher everywhere.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokeniser = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokeniser.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokeniser.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    clean = (tokeniser.normalizer.normalize_str(text) for text in texts)
    words = Counter(word for text in clean for word, _ in tokeniser.pre_tokenizer.pre_tokenize_str(text))
    pieces = {word for word, count in words.items() if count > 1}
    pieces |= {start + letter for word in words for letter in word for start in ("", "##")}
    pairs = Counter(f"##{word[at : at + 2]}" for word in words for at in range(1, len(word) - 1))
    rest = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[: max(0, 220 - len(SPECIAL_TOKENS) - len(pieces))]
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL_TOKENS, *sorted({*pieces, *rest})])}
    tokeniser.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokeniser.add_special_tokens(SPECIAL_TOKENS)
    ends = [(name, tokeniser.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokeniser.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokeniser


def tiny_config(vocabulary: int, **changes: Any) -> Any:
    """A BERT of two layers, 32 wide."""
    from transformers import BertConfig

    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    return BertConfig(**settings | changes)


def write_checkpoint(folder: Path, model: Any, tokeniser: Any) -> Path:
    """A checkpoint folder as transformers writes it, with one tokenizer.json."""
    model.save_pretrained(folder)
    tokeniser.save(str(folder / "tokenizer.json"))
    return folder


def write_tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A BERT with random weights and a tokeniser of the toy texts."""
    import torch
    from transformers import BertModel

    torch.manual_seed(seed)
    tokeniser = toy_tokeniser(toy_rows(200, seed=99).text)
    return write_checkpoint(folder, BertModel(tiny_config(tokeniser.get_vocab_size())), tokeniser)


def write_smaller_checkpoint(folder: Path) -> Path:
    """A RoBERTa with random weights, half as wide, with a byte-level BPE of the toy texts."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(3)
    tokeniser = train_tokeniser("BPE", toy_rows(200, seed=99).text)
    config = RobertaConfig(
        vocab_size=tokeniser.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        pad_token_id=tokeniser.token_to_id("<pad>"),
    )
    return write_checkpoint(folder, RobertaModel(config), tokeniser)


def write_masked_checkpoint(folder: Path, scores: Mapping[str, float]) -> Path:
    """The same kind of BERT with a random masked-language head that gives some words a higher score."""
    import torch
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    tokeniser = toy_tokeniser(toy_rows(200, seed=99).text)
    model = BertForMaskedLM(tiny_config(tokeniser.get_vocab_size()))
    with torch.no_grad():
        for word, score in scores.items():
            model.cls.predictions.bias[tokeniser.get_vocab()[word]] = score
    return write_checkpoint(folder, model, tokeniser)


def toy_params() -> dict[str, Any]:
    """A whole run in seconds on one thread."""
    return {
        "data": {"source": "rows.csv"},
        "teacher": {
            "source": "checkpoint",
            "max_length": 32,
            "epochs": 4,
            "patience": 3,
            "learning_rate": 3e-3,
            "head_learning_rate": 1e-2,
            "batch_tokens": 128,
            "train_embeddings": True,
        },
        "students": {
            "static": {
                "family": "static",
                "epochs": 8,
                "learning_rate": 1e-2,
                "dimensions": 16,
                "hidden": 16,
                "max_length": 32,
                "batch_rows": 16,
            },
            "sliced": {
                "family": "sliced",
                "epochs": 2,
                "layers": 1,
                "learning_rate": 3e-3,
                "max_length": 32,
                "batch_tokens": 128,
            },
        },
        "capture": {"batch_tokens": 1024, "shard_entries": 50, "spot_check": 16},
        "quantise": {"calibration_rows": 64},
        "gate": {"resamples": 200},
        "compute": {"threads": 1, "precision": "fp32", "device": "cpu"},
    }


@dataclass(frozen=True)
class Workspace:
    """A folder with params.yaml, artifacts/split and sources/teacher.json; the current folder of a test."""

    path: Path

    def params(self, *overrides: str) -> Params:
        """What params.yaml says, with overrides."""
        return load_params(self.path / layout.PARAMS, overrides)

    def override(self, *overrides: str) -> Params:
        """Rewrite params.yaml with overrides."""
        params = self.params(*overrides)
        write_yaml(params, self.path / layout.PARAMS)
        return params


def write_workspace(path: Path, checkpoint: Path, rows: Sequence[int] = (120, 45, 45), seed: int = 7) -> Workspace:
    """Write a workspace as it stands once data and teacher are in place. rows: of train, validation, test."""
    path.mkdir(parents=True, exist_ok=True)
    examples: dict[str, Examples] = {}
    first = 0
    for number, (name, count) in enumerate(zip(("train", "validation", "test"), rows, strict=True)):
        part = toy_rows(count, seed + number, first)
        examples[name] = Examples(part.row.tolist(), part.text, [LABELS[label] for label in part.label])
        first += count
    source = DataSource(train=FileSource(uri="rows.csv", sha256="0" * 64, file="train.csv"))
    write_splits(Splits(examples), source, [], path / layout.SPLIT)
    write_no_cases(path)
    pin_teacher(path, checkpoint)
    write_yaml(validate(toy_params(), "toy"), path / layout.PARAMS)
    (path / layout.LOCK).write_text("numpy==2.0\n", encoding="utf-8")
    return Workspace(path)


def write_no_cases(workspace: Path) -> None:
    """Say, as the stage ingest does, that there are no must-not-change cases."""
    (workspace / layout.INGESTED).mkdir(parents=True, exist_ok=True)
    write_cases(NONE, workspace / layout.INGESTED / FILE)


def pin_teacher(workspace: Path, checkpoint: Path) -> None:
    """Pin a checkpoint as the teacher of a workspace, in a copy that the workspace owns."""
    own = workspace / "checkpoint"
    if own.exists():
        shutil.rmtree(own)
    shutil.copytree(checkpoint, own)
    pin = {"uri": str(own), "sha256": tree_digest(own), "licence": None, "files": file_digests(own)}
    write_json(workspace / layout.SOURCE_TEACHER, pin)


def train_tokeniser(kind: str, texts: Sequence[str], vocabulary: int = 400) -> Any:
    """A tokeniser of one of the kinds that students can trim, as well-known models of that kind have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if kind == "WordPiece":
        return toy_tokeniser(texts)
    ends = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "BPE":
        tokeniser = Tokenizer(models.BPE())
        tokeniser.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokeniser.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=ends,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokeniser.train_from_iterator(texts, trainer)
        tokeniser.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        return tokeniser
    if kind == "Unigram":
        tokeniser = Tokenizer(models.Unigram())
        tokeniser.normalizer = normalizers.NFKC()
        tokeniser.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=vocabulary, special_tokens=ends, unk_token="<unk>", show_progress=False
        )
    else:
        tokeniser = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokeniser.normalizer = normalizers.Lowercase()
        tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(vocab_size=vocabulary, special_tokens=ends, show_progress=False)
    tokeniser.train_from_iterator(texts, trainer)
    pairs = [(name, tokeniser.token_to_id(name)) for name in ("<s>", "</s>")]
    tokeniser.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=pairs)
    return tokeniser


def publish_teacher(folder: Path, checkpoint: Path, **changes: Any) -> Path:
    """A published teacher that was never trained. changes: of its description, and seed for other weights."""
    import torch

    from stillroom.teacher.model import (
        Description,
        EncoderClassifier,
        count_params,
        load_encoder,
        save_teacher,
    )
    from stillroom.teacher.tokeniser import pad_id, read_tokeniser

    torch.manual_seed(changes.pop("seed", 0))
    encoder = load_encoder(checkpoint)
    told = {
        "name": "toy",
        "labels": LABELS,
        "pooling": "mean",
        "max_length": 32,
        "temperature": 1.0,
        "precision": "fp32",
        "pad": pad_id(checkpoint),
        "metrics": {"validation": {"accuracy": 0.5}},
    } | changes
    width = encoder.config.hidden_size
    model = EncoderClassifier(encoder, width, len(told["labels"]), told["pooling"]).eval()
    folder.mkdir(parents=True, exist_ok=True)
    tokeniser = read_tokeniser(checkpoint, told["max_length"])
    save_teacher(folder, model, tokeniser, Description(**told, params=count_params(model)))
    return folder
