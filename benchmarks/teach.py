"""Fine-tuning speed: Stillroom's teacher training beside transformers' Trainer, and what makes the difference.

    python benchmarks/teach.py --checkpoint FOLDER --texts FILE.parquet [--rows 1200] [--json]

FILE has the columns text and label (artifacts/split/train.parquet after `make demo`). Every contender trains one epoch
of the same rows with the same model, in bf16, on the same machine, in a process of its own; the epoch is timed, and
tokens are counted without padding. `trainer` is transformers' Trainer with its defaults; `trainer_same_choices` gets
Stillroom's choices that the Trainer offers: rows by length, no dropout, plain attention, the token table frozen.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTENDERS = ("stillroom", "trainer", "trainer_same_choices", "inference", "inference_returning_memory")
MAX_LENGTH = 128
ROWS_PER_BATCH = 24
BATCH_TOKENS = 2048


def main() -> None:
    """Run every contender in turn and print tokens per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps({"tokens_per_second": CONTENDER[arguments.contender](arguments)}))
        return
    speeds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.rounds):
        for name in CONTENDERS:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--contender", name], capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{name}: {done.stderr[-2000:]}")
            speeds[name].append(json.loads(done.stdout.splitlines()[-1])["tokens_per_second"])
            print(f"{name}: {speeds[name][-1]:,.0f} tokens/s", flush=True)
    best = {name: max(values) for name, values in speeds.items()}
    figures = {f"{name}_tokens_per_second": round(value, 1) for name, value in best.items()}
    figures |= {
        "speedup_over_trainer": round(best["stillroom"] / best["trainer"], 2),
        "speedup_over_trainer_same_choices": round(best["stillroom"] / best["trainer_same_choices"], 2),
        "inference_speedup_of_kept_memory": round(best["inference"] / best["inference_returning_memory"], 2),
    }
    for name, value in figures.items():
        print(f"{name:45s} {value:>12,}")
    if arguments.json:
        print(json.dumps(figures))


def _material(arguments: Any) -> tuple[Any, Any, list[str]]:
    import pandas as pd

    from stillroom.batching import tokenise
    from stillroom.data.splits import Rows
    from stillroom.teacher.tokeniser import read_tokeniser

    table = pd.read_parquet(arguments.texts).head(arguments.rows)
    labels = sorted(table["label"].unique())
    ids = table["label"].map({label: index for index, label in enumerate(labels)}).to_numpy(dtype="int64")
    texts = table["text"].tolist()
    tokens = tokenise(read_tokeniser(arguments.checkpoint, MAX_LENGTH), texts, MAX_LENGTH)
    return tokens, Rows(table.index.to_numpy(), texts, ids), labels


def stillroom(arguments: Any) -> float:
    """Tokens a second of teacher.finetune with the defaults of params.yaml."""
    import os

    from stillroom import compute
    from stillroom.params import ComputeParams, TeacherParams
    from stillroom.teacher.finetune import fine_tune
    from stillroom.training import Scratch

    machine = ComputeParams(precision="bf16")
    compute.prepare(machine)
    tokens, rows, labels = _material(arguments)
    few = _first(tokens, rows, 32)
    settings = TeacherParams(source="-", epochs=1, batch_tokens=BATCH_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STILLROOM_STATE"] = folder
        _, history = fine_tune(
            arguments.checkpoint, settings, labels, (tokens, rows), few, 0, 0, machine, Scratch("benchmark")
        )
    return len(tokens.ids) / history[0]["seconds"]


def _first(tokens: Any, rows: Any, count: int) -> Any:
    from stillroom.data.splits import Rows

    return tokens.first(count), Rows(rows.row[:count], rows.text[:count], rows.label[:count])


def trainer(arguments: Any, same_choices: bool = False) -> float:
    """Tokens a second of transformers' Trainer."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    tokens, rows, labels = _material(arguments)
    extra: dict[str, Any] = {}
    if same_choices:
        extra = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "attn_implementation": "eager"}
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.checkpoint, num_labels=len(labels), dtype=torch.float32, **extra
    )
    if same_choices:
        model.base_model.get_input_embeddings().weight.requires_grad_(False)
    data = [{"input_ids": tokens.one(row).tolist(), "labels": int(rows.label[row])} for row in range(len(tokens))]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            per_device_train_batch_size=ROWS_PER_BATCH,
            num_train_epochs=1,
            learning_rate=1e-4,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **({"train_sampling_strategy": "group_by_length"} if same_choices else {}),
        )
        collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(arguments.checkpoint))
        clock = _epoch_clock()
        Trainer(model=model, args=settings, train_dataset=data, data_collator=collator, callbacks=[clock]).train()
        return len(tokens.ids) / clock.seconds


def _epoch_clock() -> Any:
    """A callback that times the one epoch, without set-up, as Stillroom's own history does."""
    from transformers import TrainerCallback

    class EpochClock(TrainerCallback):  # type: ignore[misc]
        seconds = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.seconds = -time.monotonic()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.seconds += time.monotonic()

    return EpochClock()


def inference(arguments: Any, keep: bool = True) -> float:
    """Tokens a second of a bf16 forward pass over all rows, with and without freed memory kept."""
    import torch

    from stillroom import compute
    from stillroom.cores import available_cores
    from stillroom.teacher.inference import predict
    from stillroom.teacher.model import EncoderClassifier, load_encoder

    torch.set_num_threads(available_cores())
    if keep:
        compute.keep_freed_memory()
    tokens, _, labels = _material(arguments)
    encoder = load_encoder(arguments.checkpoint)
    encoder.set_attn_implementation("sdpa")
    model = EncoderClassifier(encoder, encoder.config.hidden_size, len(labels), "mean").to(torch.bfloat16).eval()
    began = time.monotonic()
    predict(model, tokens, 0, 8192)
    return len(tokens.ids) / (time.monotonic() - began)


CONTENDER = {
    "stillroom": stillroom,
    "trainer": trainer,
    "trainer_same_choices": lambda arguments: trainer(arguments, same_choices=True),
    "inference": inference,
    "inference_returning_memory": lambda arguments: inference(arguments, keep=False),
}


if __name__ == "__main__":
    main()
