"""A small decoder with a tokenizer of its own teaches an encoder: what crosses, and what does not.

    python benchmarks/decoder_teacher.py DATA OUTPUT [--students kd coalition adkd]

The teacher is a Qwen3 classifier of 4 layers × 192 and a byte-level BPE tokenizer of 6,000 tokens, both made here from
20,000 rows of DATA/sst2. Students are 3 layers of MiniLM that learn from 1,500 rows, one seed. Figures are of the whole
validation split; those before the first step are the floor. Finished models are left alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers as tr
from measuring import PAGE, markdown, publish
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from gradistill import DataChoice, distill, finetune, load_recipe
from gradistill.commands.run_folder import recorded_metrics
from gradistill.data import load_splits
from gradistill.recipe import Recipe

TEACHER_ROWS, STUDENT_ROWS, TOKENS = 20_000, 1500, 6000
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
SHAPE = {
    "vocab_size": TOKENS, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 32, "max_position_embeddings": 128,
}  # fmt: skip
LOYALTIES = {
    "label": "label",
    "probability": "probability",
    "response": "response",
    "saliency of words": "saliency",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--students", nargs="+", default=["kd", "coalition", "adkd"])
    given = parser.parse_args()
    data, base, teacher = str(given.data / "sst2"), given.output / "base", given.output / "teacher"
    if not (base / "config.json").is_file():
        write_base(data, base)
    choice, own = DataChoice(data, task="sst2"), recipe("finetune", TEACHER_ROWS, 5e-4, 3)
    taught = once(teacher, lambda: finetune(str(base), choice, teacher, own))
    rows = [row("teacher", taught["eval"]["accuracy"], None, "")]
    for method in given.students:
        own = recipe(method, STUDENT_ROWS, 2e-4, 2, "student.checkpoint=minilm-l6", "student.layers=3")
        folder = given.output / method
        found = once(folder, lambda at=folder, own=own: distill(str(teacher), choice, at, own))
        rows.append(row(f"`{method}`", found["eval"]["accuracy"], found["loyalty"], "value"))
        floor = row("floor", None, found["loyalty"], "floor")
    command = "python benchmarks/decoder_teacher.py DATA OUTPUT"
    page = PAGE.with_name("teachers.md")
    publish("decoder_teacher", markdown([*rows, floor]), [*rows, floor], command=command, page=page)


def row(model: str, accuracy: float | None, loyalty: Mapping[str, Any] | None, part: str) -> dict[str, str]:
    figures = {name: loyalty[key][part] if loyalty else None for name, key in LOYALTIES.items()}
    shown = {"accuracy": accuracy, **figures}
    return {"model": model} | {name: "" if value is None else f"{value:.3f}" for name, value in shown.items()}


def once(folder: Path, make: Any) -> Mapping[str, Any]:
    return recorded_metrics(folder) or make()


def recipe(method: str, rows: int, rate: float, epochs: int, *changes: str) -> Recipe:
    own = [
        f"max_train_rows={rows}",
        f"learning_rate={rate}",
        f"epochs={epochs}",
        "batch_size=32",
        "arguments.bf16=true",
    ]
    return load_recipe(method, changes=[*(f"training.{change}" for change in own), *changes])


def write_base(data: str, folder: Path) -> None:
    """A decoder with random weights, and a tokenizer of the training texts."""
    splits = load_splits(data, splits=("train",), task="sst2")
    texts = splits.rows["train"].shuffle(seed=0).select(range(TEACHER_ROWS))[splits.task.text_columns[0]][:]
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=TOKENS, special_tokens=[*SPECIAL], initial_alphabet=alphabet)
    )
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = tr.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>",
        unk_token="<unk>", model_max_length=128,
    )  # fmt: skip
    tr.set_seed(0)
    tr.Qwen3ForSequenceClassification(tr.Qwen3Config(**SHAPE, pad_token_id=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
