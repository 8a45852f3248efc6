"""One system on the rows of a Stillroom workspace: trained, asked for the test rows, timed beside fixed yardsticks.

    python benchmarks/peers.py SYSTEM --workspace FOLDER --student NAME --encoder FOLDER [--seed 0] --out FILE

benchmarks/students.py calls it, once for each system and seed, with `src` on PYTHONPATH; a peer needs the environment
of benchmarks/peers-requirements.txt. Every peer learns from the workspace's training and validation rows together,
since each sets aside what it wants of them, and starts from the same encoder as the teacher. Speeds are compared within
this process: the system takes turns with the student's package, the teacher's int8 package and the bare tokenising of
the text by the student's tokeniser, one text at a time. No test text is timed twice, nor asked for before it is timed.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TIMED_TEXTS = 1000
SLOW_TEXTS = 100
FAST_MS = 5.0
"""A system that takes longer for a text is warmed with, and timed on, SLOW_TEXTS."""
FEW_ROWS, LEAST_ROWS = 616, 8
PAIRS_A_STEP, FEW_STEPS = 16, 346
"""All pairs that 8 rows of each of 77 classes give, undersampled; 308 rows of each of 2 would give 34 times as many."""
BATCH_TOKENS = 8192
CUT_EPOCHS = 5


@dataclass(frozen=True)
class Trained:
    """A system ready to serve. size_bytes: of all that it loads; unquantised: class ids before quantising, if it is.

    predict: texts → class ids, in order.
    """

    predict: Callable[[Sequence[str]], Sequence[int]]
    params: int
    size_bytes: int
    setting: str
    unquantised: Sequence[int] | None = None


@dataclass(frozen=True)
class Task:
    """What a system is given. texts, labels: rows to learn from; scratch: a folder of its own."""

    workspace: Path
    student: str
    encoder: Path
    texts: list[str]
    labels: list[int]
    test: list[str]
    seed: int
    scratch: Path


def main() -> None:
    """Train one system and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(arguments, Path(scratch))
    arguments.out.write_text(json.dumps(found))


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Everything that benchmarks/students.py keeps of one system and seed."""
    from stillroom.data.splits import read_snapshot, read_split

    split = arguments.workspace / "artifacts/split"
    rows = [read_split(split, name) for name in ("train", "validation")]
    test = read_split(split, "test")
    task = Task(
        workspace=arguments.workspace,
        student=arguments.student,
        encoder=arguments.encoder,
        texts=[text for part in rows for text in part.text],
        labels=[int(label) for part in rows for label in part.label],
        test=test.text,
        seed=arguments.seed,
        scratch=scratch,
    )
    began = time.monotonic()
    trained = SYSTEMS[arguments.system](task)
    seconds = time.monotonic() - began
    latency_ms = latencies(task, trained)  # before the test rows are met: a package keeps their words
    predicted = [int(label) for label in trained.predict(test.text)]
    return {
        "data_sha256": read_snapshot(split).sha256,
        "predicted": predicted,
        "unquantised": None if trained.unquantised is None else [int(label) for label in trained.unquantised],
        "params": trained.params,
        "size_bytes": trained.size_bytes,
        "setting": trained.setting,
        "train_seconds": seconds,
        "latency_ms": latency_ms,
        "python": platform.python_version(),
    }


def latencies(task: Task, trained: Trained) -> dict[str, dict[str, float]]:
    """p50 and p95 of the system and of the yardsticks, on the same test texts and in turns.

    All have met other rows before, the last of those to learn from: validation's, as in the stage evaluate.
    """
    from stillroom.batching import encode
    from stillroom.export.measure import latencies_ms
    from stillroom.export.runtime import Package

    chosen = np.random.default_rng(0).permutation(len(task.test))[:TIMED_TEXTS]
    texts = [task.test[row] for row in chosen]
    student = Package.load(task.workspace / "artifacts/packages" / task.student / "student")
    teacher = Package.load(task.workspace / "artifacts/reference/onnx_int8")
    predictors: dict[str, Callable[[str], Any]] = {
        "own": lambda text: trained.predict([text])[0],
        "student": lambda text: int(student.predict([text])[0].argmax()),
        "onnx_int8": lambda text: int(teacher.predict([text])[0].argmax()),
        "tokenise": lambda text: encode(student.tokeniser, [text], student.manifest["max_length"])[0].ids,
    }
    met = task.texts[-TIMED_TEXTS:]
    once = latencies_ms(predictors, met[:10], {})
    slow = {name: SLOW_TEXTS for name, taken in once.items() if taken["p50"] >= FAST_MS}
    for name, predict in predictors.items():
        for text in met[: slow.get(name, len(met))]:
            predict(text)
    return latencies_ms(predictors, texts, slow, met)


def student(task: Task) -> Trained:
    """The workspace's own student, as it is released."""
    from stillroom.batching import load_tokeniser, tokenise
    from stillroom.export.onnx import torch_logits
    from stillroom.students.distil import load_student

    source = task.workspace / "artifacts/students" / task.student
    module, description = load_student(source, "student")
    length = description["max_length"]
    tokens = tokenise(load_tokeniser(source / "tokenizer.json", length), task.test, length)
    unquantised = torch_logits(module, tokens, BATCH_TOKENS).argmax(axis=1)
    return _package(task.workspace / "artifacts/packages" / task.student / "student", unquantised.tolist())


def teacher_int8(task: Task) -> Trained:
    """The fine-tuned teacher itself, quantised dynamically."""
    from stillroom.data.splits import read_split
    from stillroom.export.predictions import read_probabilities

    reference, test = task.workspace / "artifacts/reference", read_split(task.workspace / "artifacts/split", "test")
    unquantised = read_probabilities(reference / "predictions.parquet", "teacher", test).argmax(axis=1)
    return _package(reference / "onnx_int8", unquantised.tolist())


def _package(folder: Path, unquantised: Sequence[int]) -> Trained:
    from stillroom.export.runtime import Package

    package = Package.load(folder)
    quantisation = package.manifest["quantisation"]
    return Trained(
        predict=lambda texts: package.predict(texts).argmax(axis=1).tolist(),
        params=package.manifest["params"],
        size_bytes=_size(folder),
        setting=f"{package.manifest['family']}, {quantisation}",
        unquantised=None if quantisation == "fp32" else unquantised,
    )


def tfidf(task: Task) -> Trained:
    """TF-IDF and logistic regression, scikit-learn's defaults, with iterations enough to converge."""
    import joblib
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words, head = TfidfVectorizer(), LogisticRegression(max_iter=1000, random_state=task.seed)
    model = make_pipeline(words, head).fit(task.texts, task.labels)
    joblib.dump(model, task.scratch / "model.joblib")
    return Trained(
        predict=model.predict,
        params=words.idf_.size + _head_params(head),
        size_bytes=_size(task.scratch),
        setting="defaults, at most 1,000 iterations",
    )


def model2vec(task: Task) -> Trained:
    """model2vec: the encoder distilled to static embeddings, its own classifier on top, both with their defaults."""
    from model2vec.distill import distill
    from model2vec.train import StaticModelForClassification

    classifier = StaticModelForClassification.from_static_model(model=distill(str(task.encoder)))
    classifier.fit(task.texts, [str(label) for label in task.labels], random_seed=task.seed)
    weights = [value for value in classifier.parameters() if value.is_floating_point()]
    pipeline = classifier.to_pipeline()
    pipeline.save_pretrained(str(task.scratch / "model"))
    return Trained(
        predict=lambda texts: [int(label) for label in pipeline.predict(list(texts))],
        params=sum(value.numel() for value in weights),
        size_bytes=_size(task.scratch / "model"),
        setting="distil() and StaticModelForClassification with their defaults; hard labels, soft ones are not offered",
    )


def setfit(task: Task) -> Trained:
    """SetFit: contrastive pairs of a few rows, evenly by class, the head on every row.

    The default, every pair of every row with oversampling, is thousands of hours on two cores.
    """
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments, sample_dataset
    from transformers import set_seed

    set_seed(task.seed)
    model = SetFitModel.from_pretrained(str(_sentence_encoder(task)))
    rows = Dataset.from_dict({"text": task.texts, "label": task.labels})
    each = rows_of_each_class(len(set(task.labels)))
    few = sample_dataset(rows, num_samples=each, seed=task.seed)
    settings = TrainingArguments(
        output_dir=str(task.scratch / "checkpoints"),
        sampling_strategy="undersampling",
        batch_size=PAIRS_A_STEP,
        max_steps=FEW_STEPS,
        seed=task.seed,
        report_to="none",
        save_strategy="no",
        show_progress_bar=False,
    )
    trainer = Trainer(model=model, args=settings, train_dataset=few)
    with faster_products():
        trainer.train_embeddings(list(few["text"]), list(few["label"]))
    trainer.train_classifier(task.texts, task.labels)
    model.save_pretrained(str(task.scratch / "model"))
    return Trained(
        predict=lambda texts: model.predict(list(texts), show_progress_bar=False).tolist(),
        params=_count(model.model_body) + _head_params(model.model_head),
        size_bytes=_size(task.scratch / "model"),
        setting=f"{PAIRS_A_STEP * FEW_STEPS} pairs of {each} rows a class, undersampled; regression on every row",
    )


def rows_of_each_class(classes: int) -> int:
    """How many rows of each class SetFit makes pairs of: as many in all whatever the number of classes."""
    return max(LEAST_ROWS, FEW_ROWS // classes)


def layer_cut(task: Task) -> Trained:
    """sentence-transformers: every third layer kept, a regression on top, ONNX int8 by optimum.

    What it imitates are the checkpoint's embeddings, not the fine-tuned teacher.
    """
    import joblib
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        export_dynamic_quantized_onnx_model,
    )
    from sentence_transformers.sentence_transformer.losses import MSELoss
    from sklearn.linear_model import LogisticRegression

    body = _sentence_encoder(task)
    answers = SentenceTransformer(str(body), device="cpu").encode(task.texts)
    cut = SentenceTransformer(str(body), device="cpu")
    inner = cut[0].auto_model
    kept = list(range(1, len(inner.encoder.layer), 3))
    inner.encoder.layer = torch.nn.ModuleList([inner.encoder.layer[place] for place in kept])
    inner.config.num_hidden_layers = len(kept)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(task.scratch / "checkpoints"),
        num_train_epochs=CUT_EPOCHS,
        per_device_train_batch_size=64,
        learning_rate=1e-4,
        warmup_ratio=0.1,
        seed=task.seed,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = Dataset.from_dict({"sentence": task.texts, "label": answers.tolist()})
    with faster_products():
        SentenceTransformerTrainer(model=cut, args=settings, train_dataset=rows, loss=MSELoss(cut)).train()
    head = LogisticRegression(max_iter=1000).fit(cut.encode(task.texts), task.labels)
    target = task.scratch / "model"
    cut.save_pretrained(str(target))
    kind = "avx512_vnni" if "avx512_vnni" in Path("/proc/cpuinfo").read_text() else "avx2"
    graph = SentenceTransformer(str(target), backend="onnx", device="cpu")
    export_dynamic_quantized_onnx_model(graph, kind, str(target))
    model_file = f"onnx/model_qint8_{kind}.onnx" if kind == "avx512_vnni" else f"onnx/model_quint8_{kind}.onnx"
    served = SentenceTransformer(str(target), backend="onnx", device="cpu", model_kwargs={"file_name": model_file})
    joblib.dump(head, target / "head.joblib")
    (target / "model.safetensors").unlink()
    (target / "onnx/model.onnx").unlink(missing_ok=True)
    return Trained(
        predict=lambda texts: head.predict(served.encode(list(texts), show_progress_bar=False)).tolist(),
        params=_count(cut) + _head_params(head),
        size_bytes=_size(target),
        setting=f"layers {kept}, {CUT_EPOCHS} epochs of MSELoss, logistic regression, dynamic int8 ({kind})",
        unquantised=head.predict(cut.encode(task.test)).tolist(),
    )


@contextmanager
def faster_products() -> Iterator[None]:
    """Encoders are trained with bf16 products where Stillroom's are; weights and what is served stay fp32.

    Without the cache of casts: it is emptied at the end of this context only, and would hide every step from the next.
    """
    import torch

    from stillroom import compute
    from stillroom.params import ComputeParams

    faster = compute.precision(ComputeParams()) == "bf16"
    with torch.autocast("cpu", torch.bfloat16, enabled=faster, cache_enabled=False):
        yield


def _sentence_encoder(task: Task) -> Path:
    """The encoder as sentence-transformers saves it; mean pooling and norm are added where the folder lacks them."""
    if (task.encoder / "1_Pooling").is_dir():
        return task.encoder
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    words = modules.Transformer(str(task.encoder))
    pooling = modules.Pooling(words.get_embedding_dimension(), "mean")
    target = task.scratch / "encoder"
    SentenceTransformer(modules=[words, pooling, modules.Normalize()], device="cpu").save_pretrained(str(target))
    return target


def _count(model: Any) -> int:
    return sum(value.numel() for value in model.parameters())


def _head_params(head: Any) -> int:
    return int(head.coef_.size + head.intercept_.size)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


SYSTEMS: dict[str, Callable[[Task], Trained]] = {
    "student": student,
    "teacher_int8": teacher_int8,
    "tfidf": tfidf,
    "model2vec": model2vec,
    "setfit": setfit,
    "layer_cut": layer_cut,
}


if __name__ == "__main__":
    main()
