"""Behaviours of transformers' Trainer, each to be run on Trainer and on DistillationTrainer with ``[HardLabel()]``."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from families import build
from gradistill import DistillationTrainer
from gradistill.objectives.hard_label import HardLabel
from gradistill.recipe import ComputeSettings
from training.conftest import QUIET, padded, rows
from wordpiece import WORDS, tokenizer

Verdict = Literal["equal", "differs", "refused"]
WHOLE = ComputeSettings(trim_last_block=False)
"""The last block as the Trainer computes it, so that nothing but the trainer may differ."""


def student(labels: int = 3, **changes: Any) -> Any:
    """In float64: two ways to add the same numbers up differ by 1e-16."""
    return build("bert", labels=labels, seed=1, num_hidden_layers=2, **{**QUIET, **changes}).double()


@dataclass
class Side:
    """One of the two trainers: how to make it, in a folder of its own."""

    kind: type[Trainer]
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self, **changes: Any) -> TrainingArguments:
        plain = {
            "output_dir": str(self.folder / "out"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1,
            "save_strategy": "no", "seed": 0, "train_sampling_strategy": "sequential", "log_level": "error",
        }  # fmt: skip
        return TrainingArguments(**{**plain, **changes})

    def made(self, model: Any = None, *, options: dict[str, Any] | None = None, **arguments: Any) -> Any:
        chosen = {"train_dataset": rows(3, 10), "eval_dataset": rows(3, 6, seed=7), "data_collator": padded}
        chosen.update(options or {})
        if model is None and "model_init" not in chosen:
            model = student()
        ours = {"objectives": [HardLabel()], "compute": WHOLE} if self.kind is DistillationTrainer else {}
        args = chosen.pop("args", None) or self.arguments(**arguments)
        return self.kind(model, args, **chosen, **ours)

    def trained(self, model: Any = None, **arguments: Any) -> Any:
        """Weights and logs after training."""
        trainer = self.made(model, **arguments)
        trainer.train()
        return outcome(trainer)


_TIMES = ("runtime", "per_second", "total_flos", "preparation_time")


def outcome(trainer: Any) -> dict[str, Any]:
    return {"weights": weights(trainer.model), "logs": logs(trainer), "step": trainer.state.global_step}


def weights(model: Any) -> dict[str, Tensor]:
    """But for the keys' biases, which no softmax feels: Adam makes steps of the rounding errors in their gradient."""
    return {name: w.detach().clone() for name, w in model.state_dict().items() if "key.bias" not in name}


def logs(trainer: Any) -> list[dict[str, float]]:
    """All that was logged, but for times and what objectives add."""
    return [plain(entry) for entry in trainer.state.log_history]


def plain(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if "/" not in k and not any(time in k for time in _TIMES)}


def alike(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """float64, and the loss is added up in another order; what is logged is rounded to float32 at times (1e-6)."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(v, other[k], tolerance) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(alike(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, Tensor | np.ndarray | np.generic):
        first, second = torch.as_tensor(one), torch.as_tensor(other)
        return first.shape == second.shape and bool(
            torch.allclose(first.double(), second.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
        )
    if isinstance(one, float):
        return bool(
            np.isclose(one, other, rtol=max(tolerance, 1e-6), atol=max(tolerance, 1e-7), equal_nan=True)
        )
    return bool(one == other)


@dataclass(frozen=True)
class Behaviour:
    """``run`` returns what is compared. ``why`` explains a difference, or is in the message of a refusal."""

    name: str
    run: Callable[[Side], Any]
    verdict: Verdict = "equal"
    why: str = ""
    tolerance: float = 1e-9
    late: bool = False
    """Whether it is refused at the first batch, when the Trainer has made its folder."""


LIST: list[Behaviour] = []


def equal(name: str, tolerance: float = 1e-9, **arguments: Any) -> Any:
    """A behaviour by its arguments alone, or a decorator for a function that runs it."""
    if arguments:
        LIST.append(Behaviour(name, lambda side: side.trained(**arguments), tolerance=tolerance))
        return None
    return _listed(name, "equal", "", tolerance)


def differs(name: str, why: str) -> Any:
    return _listed(name, "differs", why)


def refused(name: str, why: str, *, late: bool = False, **arguments: Any) -> Any:
    if arguments:
        LIST.append(Behaviour(name, lambda side: side.trained(**arguments), "refused", why))
        return None
    return _listed(name, "refused", why, late=late)


def _listed(name: str, verdict: Verdict, why: str, tolerance: float = 1e-9, *, late: bool = False) -> Any:
    def add(run: Callable[[Side], Any]) -> Callable[[Side], Any]:
        LIST.append(Behaviour(name, run, verdict, why, tolerance, late))
        return run

    return add


# --- what training computes

equal("training in the order of the rows", max_steps=5)
equal("a last batch that is not full", num_train_epochs=2, max_steps=-1)
equal("a part of an epoch (num_train_epochs=1.5)", num_train_epochs=1.5, max_steps=-1)
equal("dataloader_drop_last", dataloader_drop_last=True, max_steps=-1, num_train_epochs=2)
equal("clipping of gradients (max_grad_norm)", max_grad_norm=0.1)
equal("no clipping (max_grad_norm=0)", max_grad_norm=0)
equal("weight_decay", weight_decay=0.3)
equal("warmup and linear decay", warmup_steps=2, lr_scheduler_type="linear")
equal("a cosine schedule", lr_scheduler_type="cosine")
equal(
    "a schedule with arguments (polynomial)",
    lr_scheduler_type="polynomial",
    lr_scheduler_kwargs={"power": 2.0},
)
equal("reduce_lr_on_plateau", lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="steps", eval_steps=1,
      lr_scheduler_kwargs={"patience": 0, "threshold": 0.5}, max_steps=5)  # fmt: skip
equal("a greedy schedule", lr_scheduler_type="greedy", eval_strategy="steps", eval_steps=1, max_steps=4)
equal("optim=sgd", optim="sgd")
equal("optim=adafactor", optim="adafactor")
equal("optim=adagrad", optim="adagrad")
equal("optim=rmsprop", optim="rmsprop")
equal("betas and epsilon of AdamW", optim="adamw_torch", adam_beta1=0.5, adam_beta2=0.9, adam_epsilon=1e-4)
equal("label_smoothing_factor, in training and evaluation", label_smoothing_factor=0.2, eval_strategy="steps",
      eval_steps=1)  # fmt: skip
equal("activation_checkpointing", activation_checkpointing=True)
equal("re-entrant activation checkpointing", activation_checkpointing=True,
      activation_checkpointing_kwargs={"use_reentrant": True})  # fmt: skip
equal("neftune_noise_alpha", neftune_noise_alpha=5.0)
equal("auto_find_batch_size", auto_find_batch_size=True)
equal("full_determinism", full_determinism=True)
equal("torch_empty_cache_steps", torch_empty_cache_steps=1)
equal("batches of balanced cost (batch_rebalance)", train_sampling_strategy="batch_rebalance")
equal("split_batches of accelerate", accelerator_config={"split_batches": True})
equal("workers that load the data", dataloader_num_workers=1)
equal("logging_first_step and logging_steps", logging_first_step=True, logging_steps=2, max_steps=5)
equal("include_num_input_tokens_seen", include_num_input_tokens_seen="all")
equal(
    "evaluation at the start and after a delay",
    eval_on_start=True,
    eval_delay=2,
    eval_strategy="steps",
    eval_steps=1,
)


def four_rows_a_step(side: Side) -> dict[str, Any]:
    """Two accumulated batches for ours, one large batch for the Trainer."""
    ours = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    return ours if side.kind is DistillationTrainer else {"per_device_train_batch_size": 4}


def without_epochs(found: dict[str, Any]) -> dict[str, Any]:
    """Two batches and one large one count another part of the epoch."""
    return {**found, "logs": [{k: v for k, v in entry.items() if k != "epoch"} for entry in found["logs"]]}


@equal("gradient accumulation, as Trainer's one large batch")
def _one_large_batch(side: Side) -> Any:
    """Over two epochs of ten rows, which four do not divide."""
    return without_epochs(side.trained(max_steps=-1, num_train_epochs=2, **four_rows_a_step(side)))


@differs("the size of gradients under gradient accumulation", "averaged over all rows of the step; Trainer adds the "
         "averages of the batches up for classifiers whose loss takes no num_items_in_batch")  # fmt: skip
def _sums(side: Side) -> Any:
    return side.trained(gradient_accumulation_steps=2)["logs"][0]["loss"]


@equal("bf16", tolerance=2e-3)
def _bf16(side: Side) -> Any:
    found = side.trained(student().float(), bf16=True, optim="sgd")
    return found["weights"]


@equal("a regression")
def _regression(side: Side) -> Any:
    return side.trained(student(1), options={"train_dataset": rows(1, 10), "eval_dataset": rows(1, 6, seed=7)},
                        eval_strategy="epoch")  # fmt: skip


def some_unlabelled(count: int = 10) -> list[dict[str, Any]]:
    return [{**row, "labels": -100 if k % 3 == 1 else row["labels"]} for k, row in enumerate(rows(3, count))]


@equal("rows of label -100 in training and evaluation")
def _unlabelled(side: Side) -> Any:
    data = some_unlabelled()
    return side.trained(options={"train_dataset": data, "eval_dataset": data}, eval_strategy="epoch")


@equal("rows of label -100 in accumulated batches, as Trainer's one large batch")
def _unlabelled_accumulated(side: Side) -> Any:
    data = some_unlabelled()
    return without_epochs(side.trained(options={"train_dataset": data}, **four_rows_a_step(side)))


@equal("frozen parameters")
def _frozen(side: Side) -> Any:
    model = student()
    model.bert.embeddings.requires_grad_(False)
    return side.trained(model)


@equal("optimizers=(optimizer, None)")
def _optimizer(side: Side) -> Any:
    model = student()
    return side.trained(
        model, options={"optimizers": (torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5), None)}
    )


@equal("optimizers=(optimizer, schedule)")
def _schedule(side: Side) -> Any:
    model = student()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    return side.trained(model, options={"optimizers": (optimizer, schedule)})


@equal("optimizer_cls_and_kwargs")
def _optimizer_class(side: Side) -> Any:
    return side.trained(options={"optimizer_cls_and_kwargs": (torch.optim.Adamax, {"lr": 0.01})})


@equal("training twice goes on from the weights")
def _twice(side: Side) -> Any:
    trainer = side.made()
    trainer.train()
    trainer.train()
    return outcome(trainer)


# --- where rows come from


def texts() -> Dataset:
    """Token ids beside a text column that no model reads."""
    words = [" ".join(WORDS[5:9][: 1 + k % 4]) for k in range(8)]
    encoded = tokenizer()(words)
    return Dataset.from_dict({**encoded, "labels": [k % 3 for k in range(8)], "text": words})


@equal("a Dataset with text columns that the model does not read")
def _text_columns(side: Side) -> Any:
    data = texts()
    return side.trained(options={"train_dataset": data, "eval_dataset": data, "data_collator": None,
                                 "processing_class": tokenizer()}, eval_strategy="epoch")  # fmt: skip


@equal("a label column called label")
def _label_column(side: Side) -> Any:
    data = texts().rename_column("labels", "label")
    return side.trained(options={"train_dataset": data, "eval_dataset": data, "data_collator": None,
                                 "processing_class": tokenizer()}, eval_strategy="epoch")  # fmt: skip


@equal("a list of rows with more keys")
def _more_keys(side: Side) -> Any:
    data = [{**row, "text": "a text", "source": "s"} for row in texts()]
    return side.trained(
        options={"train_dataset": data, "data_collator": None, "processing_class": tokenizer()}
    )


@equal("remove_unused_columns=False leaves all columns to the collator")
def _all_columns(side: Side) -> Any:
    seen: set[str] = set()

    def collate(features: Any) -> Any:
        seen.update(features[0])
        return {key: value for key, value in padded(features).items() if key != "index"}

    data = Dataset.from_list([{**row, "text": "a text"} for row in rows(3, 8)])
    found = side.trained(
        options={"train_dataset": data, "data_collator": collate}, remove_unused_columns=False
    )
    return {**found, "seen": sorted(seen)}


@equal("a column called index that holds no row numbers")
def _odd_index(side: Side) -> Any:
    data = texts().rename_column("text", "index")
    return side.trained(
        options={"train_dataset": data, "data_collator": None, "processing_class": tokenizer()}
    )


@equal("an iterable dataset")
def _iterable(side: Side) -> Any:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            yield from rows(3, 20)

    return side.trained(options={"train_dataset": Stream()}, max_steps=4)


@equal("batches of inputs_embeds")
def _embeds(side: Side) -> Any:
    table = torch.randn(64, 16, generator=torch.Generator().manual_seed(3)).double()

    def collate(features: Any) -> Any:
        batch = padded(features)
        ids = batch.pop("input_ids")
        return {**{key: v for key, v in batch.items() if key != "index"}, "inputs_embeds": table[ids]}

    return side.trained(options={"data_collator": collate}, eval_strategy="epoch")


@equal("group_by_length: lengths of batches in evaluation")
def _grouped(side: Side) -> Any:
    return plain(side.made(train_sampling_strategy="group_by_length").evaluate())


@differs("the order of rows (random, group_by_length)", "drawn from the seed and the epoch's number, so that a run "
         "that goes on has the order of one that was not interrupted")  # fmt: skip
def _random(side: Side) -> Any:
    return side.trained(train_sampling_strategy="random", max_steps=5)["weights"]


@equal("dropout masks")
def _dropout(side: Side) -> Any:
    return side.trained(student(hidden_dropout_prob=0.2))["weights"]


@differs("logs of training", "the mean of each objective is added: raw/hard_label, weighted/hard_label")
def _log_keys(side: Side) -> Any:
    trainer = side.made()
    trainer.train()
    return sorted(trainer.state.log_history[0])


@differs("a loss that is not finite", "training stops and names objective, step and rows; Trainer goes on")
def _nan(side: Side) -> Any:
    model = student()
    with torch.no_grad():
        model.classifier.weight.fill_(torch.nan)
    try:
        side.trained(model)
    except Exception as error:
        return type(error).__name__
    return "trained"


# --- model_init and searches


@equal("model_init")
def _model_init(side: Side) -> Any:
    return side.trained(options={"model_init": lambda: student()})


def _search(side: Side) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trainer = side.made(options={"model_init": lambda: student()}, eval_strategy="epoch", max_steps=2)
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)},
        n_trials=3, backend="optuna", sampler=optuna.samplers.RandomSampler(seed=0),
    )  # fmt: skip
    return {"run": best.run_id, "objective": best.objective, "values": best.hyperparameters}


equal("hyperparameter_search over several trials")(_search)


# --- losses and outputs


@equal("compute_loss(return_outputs=True) in training")
def _outputs(side: Side) -> Any:
    trainer = side.made()
    trainer.model.train()
    loss, outputs = trainer.compute_loss(
        trainer.model, without_index(padded(rows(3, 6))), return_outputs=True
    )
    return {"loss": loss, "logits": outputs.logits, "own": outputs["loss"], "grad": loss.requires_grad}


def without_index(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key != "index"}


@equal("compute_loss in evaluation")
def _eval_loss(side: Side) -> Any:
    trainer = side.made()
    trainer.model.eval()
    loss, outputs = trainer.compute_loss(
        trainer.model, without_index(padded(rows(3, 6))), return_outputs=True
    )
    return {"loss": loss, "logits": outputs.logits}


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


@equal("evaluate() without metrics")
def _evaluate(side: Side) -> Any:
    return plain(side.made().evaluate())


@equal("evaluate() with compute_metrics and a prefix")
def _metrics(side: Side) -> Any:
    return plain(side.made(options={"compute_metrics": accuracy}).evaluate(metric_key_prefix="dev"))


@equal("several evaluation sets")
def _several(side: Side) -> Any:
    both = {"a": rows(3, 5, seed=3), "b": rows(3, 6, seed=4)}
    return side.trained(
        options={"eval_dataset": both, "compute_metrics": accuracy}, eval_strategy="epoch", max_steps=2
    )


@equal("evaluate(another data set)")
def _another(side: Side) -> Any:
    return plain(side.made(options={"compute_metrics": accuracy}).evaluate(rows(3, 5, seed=9)))


@equal("evaluation of rows with label -100")
def _eval_unlabelled(side: Side) -> Any:
    return plain(side.made(options={"eval_dataset": some_unlabelled(8)}).evaluate())


@equal("predict()")
def _predict(side: Side) -> Any:
    found = side.made(options={"compute_metrics": accuracy}).predict(rows(3, 5, seed=9))
    return {"logits": found.predictions, "labels": found.label_ids, "metrics": plain(found.metrics)}


@equal("predict() without labels")
def _predict_unlabelled(side: Side) -> Any:
    data = [{key: v for key, v in row.items() if key != "labels"} for row in rows(3, 5)]
    found = side.made().predict(data)
    return {"logits": found.predictions, "labels": found.label_ids, "metrics": plain(found.metrics)}


@equal("predict() of a model that returns hidden states")
def _hidden(side: Side) -> Any:
    data = [row for row in rows(3, 16) if len(row["input_ids"]) == 9]
    return side.made(student(output_hidden_states=True)).predict(data).predictions


@equal("ignore_keys in evaluate and predict")
def _ignored(side: Side) -> Any:
    return (
        side.made(student(output_hidden_states=True))
        .predict(rows(3, 5), ignore_keys=["hidden_states"])
        .predictions
    )


@equal("preprocess_logits_for_metrics")
def _preprocessed(side: Side) -> Any:
    options = {
        "preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1),
        "compute_metrics": lambda p: {"accuracy": float((p.predictions == p.label_ids).mean())},
    }
    return side.trained(options=options, eval_strategy="epoch", metric_for_best_model="accuracy")


@equal("eval_accumulation_steps")
def _accumulated(side: Side) -> Any:
    trainer = side.made(
        options={"compute_metrics": accuracy}, eval_accumulation_steps=1, per_device_eval_batch_size=2
    )
    return plain(trainer.evaluate())


@equal("eval_do_concat_batches=False")
def _batches(side: Side) -> Any:
    options = {"compute_metrics": lambda p: {"batches": len(p.predictions)}}
    return plain(
        side.made(options=options, eval_do_concat_batches=False, per_device_eval_batch_size=2).evaluate()
    )


@equal("batch_eval_metrics")
def _batch_metrics(side: Side) -> Any:
    seen: list[int] = []

    def compute(prediction: Any, compute_result: bool) -> dict[str, int]:
        seen.append(len(prediction.predictions))
        return {"rows": sum(seen)} if compute_result else {}

    options = {"compute_metrics": compute}
    return plain(side.made(options=options, batch_eval_metrics=True, per_device_eval_batch_size=4).evaluate())


@equal("include_for_metrics")
def _included(side: Side) -> Any:
    options = {
        "compute_metrics": lambda p: {"inputs": float(p.inputs.sum()), "loss_of_rows": float(p.losses.mean())}
    }
    return plain(side.made(options=options, include_for_metrics=["inputs", "loss"]).evaluate())


@equal("prediction_loss_only")
def _loss_only(side: Side) -> Any:
    return plain(side.made(options={"compute_metrics": accuracy}, prediction_loss_only=True).evaluate())


@equal("bf16_full_eval", tolerance=2e-2)
def _full_eval(side: Side) -> Any:
    trainer = side.made(student().float(), bf16_full_eval=True)
    return {**plain(trainer.evaluate()), "type": str(trainer.model.dtype)}


# --- callbacks


@equal("events that a callback sees, in order")
def _events(side: Side) -> Any:
    seen: list[str] = []

    class Sees(TrainerCallback):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_"):
                return lambda args, state, control, **_: seen.append(f"{name} {state.global_step}")
            return super().__getattribute__(name)

    side.trained(options={"callbacks": [Sees()]}, eval_strategy="steps", eval_steps=2, gradient_accumulation_steps=2,
                 save_strategy="epoch")  # fmt: skip
    return seen


@equal("what a callback is given")
def _given(side: Side) -> Any:
    seen: dict[str, Any] = {}

    class Sees(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            seen.update({name: type(value).__name__ for name, value in given.items()})

    side.trained(options={"callbacks": [Sees()]})
    return seen


@equal("EarlyStoppingCallback")
def _early(side: Side) -> Any:
    found = side.trained(
        options={"callbacks": [EarlyStoppingCallback(1)]}, learning_rate=1.0, max_steps=8, eval_strategy="steps",
        eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
    )  # fmt: skip
    assert found["step"] < 8
    return found


@equal("a callback that stops training")
def _stops(side: Side) -> Any:
    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 2

    return side.trained(options={"callbacks": [Stops()]}, max_steps=6)


@equal("add_callback, pop_callback, remove_callback")
def _added(side: Side) -> Any:
    trainer = side.made()
    trainer.add_callback(EarlyStoppingCallback)
    popped = type(trainer.pop_callback(EarlyStoppingCallback)).__name__
    trainer.remove_callback(EarlyStoppingCallback)
    return popped, [type(each).__name__ for each in trainer.callback_handler.callbacks]


@equal("the state of callbacks comes back with a checkpoint")
def _callback_state(side: Side) -> Any:
    often = {
        "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
        "metric_for_best_model": "loss", "load_best_model_at_end": True,
    }  # fmt: skip
    side.trained(options={"callbacks": [EarlyStoppingCallback(5)]}, max_steps=2, **often)
    trainer = side.made(options={"callbacks": [EarlyStoppingCallback(1)]}, max_steps=3,
                        restore_callback_states_from_checkpoint=True, **often)  # fmt: skip
    trainer.train(resume_from_checkpoint=True)
    (found,) = [
        each for each in trainer.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)
    ]
    return found.early_stopping_patience


# --- checkpoints

OFTEN = {"save_strategy": "steps", "save_steps": 1}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@equal("files of checkpoints, and save_total_limit")
def _files(side: Side) -> Any:
    side.trained(**OFTEN, save_total_limit=2)
    return files(side.folder / "out")


@equal("a checkpoint is a model that from_pretrained loads")
def _loads(side: Side) -> Any:
    side.trained(**OFTEN)
    return weights(AutoModelForSequenceClassification.from_pretrained(side.folder / "out" / "checkpoint-2"))


@equal("save_only_model")
def _only_model(side: Side) -> Any:
    side.trained(**OFTEN, save_only_model=True)
    return files(side.folder / "out")


@equal("save_strategy=best")
def _save_best(side: Side) -> Any:
    found = side.trained(save_strategy="best", metric_for_best_model="loss", eval_strategy="steps", eval_steps=1,
                         learning_rate=0.3, max_steps=5)  # fmt: skip
    return {**found, "files": files(side.folder / "out")}


@equal("load_best_model_at_end, by the loss")
def _best(side: Side) -> Any:
    return side.trained(**OFTEN, load_best_model_at_end=True, eval_strategy="steps", eval_steps=1, learning_rate=0.5,
                        max_steps=5)  # fmt: skip


@equal("load_best_model_at_end, by a metric of one of several evaluation sets")
def _best_of(side: Side) -> Any:
    both = {"a": rows(3, 5, seed=3), "b": rows(3, 6, seed=4)}
    return side.trained(options={"eval_dataset": both, "compute_metrics": accuracy}, **OFTEN, eval_strategy="steps",
                        eval_steps=1, load_best_model_at_end=True, metric_for_best_model="eval_b_accuracy")  # fmt: skip


def _resumed(side: Side, **arguments: Any) -> Any:
    side.trained(**OFTEN, **arguments)
    trainer = side.made(**OFTEN, **arguments)
    trainer.train(resume_from_checkpoint=str(side.folder / "out" / "checkpoint-2"))
    return outcome(trainer)


equal("resuming from a checkpoint within an epoch")(partial(_resumed, max_steps=5))
equal("resuming with accumulated gradients, as Trainer's one large batch")(
    lambda side: without_epochs(_resumed(side, max_steps=5, **four_rows_a_step(side)))
)
equal("resuming with a schedule and decay")(
    partial(_resumed, max_steps=5, lr_scheduler_type="cosine", weight_decay=0.1)
)
equal("resuming with ignore_data_skip")(partial(_resumed, max_steps=5, ignore_data_skip=True))
equal("resuming with model_init")(partial(_resumed, max_steps=5, options={"model_init": lambda: student()}))


@equal("resume_from_checkpoint=True without a checkpoint")
def _nothing_to_resume(side: Side) -> Any:
    try:
        side.made().train(resume_from_checkpoint=True)
    except ValueError as error:
        return str(error).replace(str(side.folder), "")


@equal("save_model")
def _save_model(side: Side) -> Any:
    trainer = side.made()
    trainer.save_model(str(side.folder / "saved"))
    return files(side.folder / "saved")


@equal("save_state, log_metrics, save_metrics")
def _save_metrics(side: Side) -> Any:
    trainer = side.made()
    trainer.train()
    trainer.save_state()
    trainer.save_metrics("eval", {"eval_loss": 1.0})
    return files(side.folder / "out")


@equal("the TrainingArguments of the caller stay as they are")
def _arguments(side: Side) -> Any:
    arguments = side.arguments(activation_checkpointing=True, remove_unused_columns=True)
    before = copy.deepcopy(arguments.to_dict())
    trainer = side.made(options={"args": arguments})
    trainer.train()
    return {"same": arguments.to_dict() == before, "removes": trainer.args.remove_unused_columns}


@equal("num_examples, learning rates, trainable parameters")
def _numbers(side: Side) -> Any:
    trainer = side.made()
    trainer.train()
    loader = trainer.get_train_dataloader()
    return trainer.num_examples(loader), trainer._get_learning_rate(), trainer.state.total_flos > 0


@equal("an evaluation strategy without evaluation rows")
def _no_rows(side: Side) -> Any:
    try:
        side.made(options={"eval_dataset": None}, eval_strategy="epoch")
    except ValueError as error:
        return str(error)


@equal("a parameter that Trainer does not have")
def _unknown(side: Side) -> Any:
    try:
        side.made(options={"tokenizer": None})
    except TypeError as error:
        return "tokenizer" in str(error)


# --- what DistillationTrainer refuses


@refused("compute_loss_func", "DistillationTrainer computes its loss from objectives")
def _loss_func(side: Side) -> Any:
    return side.trained(
        options={"compute_loss_func": lambda outputs, labels, num_items_in_batch=None: outputs.logits.sum()}
    )


def multi_hot(features: Any) -> Any:
    batch = padded(features)
    return {**batch, "labels": torch.nn.functional.one_hot(batch["labels"], 3).double()}


@equal("several labels a row, by problem_type")
def _multi_label(side: Side) -> Any:
    model = student()
    model.config.problem_type = "multi_label_classification"
    return side.trained(model, options={"data_collator": multi_hot})


@refused("several labels a row, by float labels", "several labels a row", late=True)
def _multi_hot(side: Side) -> Any:
    model = student()
    model.config.problem_type = None
    return side.trained(model, options={"data_collator": multi_hot})


@refused("several scores a row", "problem_type 'regression' and 3 labels")
def _scores(side: Side) -> Any:
    model = student()
    model.config.problem_type = "regression"
    return side.trained(model)


@refused("training data without labels", "A batch has no labels", late=True)
def _no_labels(side: Side) -> Any:
    return side.trained(
        options={"train_dataset": [{k: v for k, v in r.items() if k != "labels"} for r in rows(3)]}
    )


@refused("both model and model_init", "`model` and `model_init` are both given")
def _both(side: Side) -> Any:
    return side.made(student(), options={"model_init": student})


@refused("push_to_hub without a connection", "the hub cannot be used")
def _hub(side: Side) -> Any:
    before = os.environ.get("HF_HUB_OFFLINE")
    try:
        return side.trained(push_to_hub=True, hub_model_id="nobody/nothing", hub_token="x")
    finally:
        assert os.environ.get("HF_HUB_OFFLINE") == before


@refused("a metric that no evaluation computes", "metric_for_best_model is 'bogus'")
def _bogus(side: Side) -> Any:
    return side.trained(
        options={"compute_metrics": accuracy}, eval_strategy="epoch", metric_for_best_model="bogus"
    )


refused("a logger whose package is missing", "report_to=", report_to="tensorboard")
refused("an optimizer whose package is missing", "optim='grokadamw'", optim="grokadamw")
refused("optimizers that step within the backward pass", "within the backward pass", optim="lomo")
refused("label_names", "labels are read from the column labels", label_names=["gold"])
refused("gradient_accumulation_steps=0", "gradient_accumulation_steps is 0", gradient_accumulation_steps=0)
refused("max_steps=0", "no optimizer step would run", max_steps=0)
refused(
    "a sampling strategy that there is not",
    "train_sampling_strategy is 'sorted'",
    train_sampling_strategy="sorted",
)
refused("average_tokens_across_devices=False", "averages are over the rows of all devices",
        average_tokens_across_devices=False)  # fmt: skip
refused("use_liger_kernel", "fused kernels of Liger", use_liger_kernel=True)
refused("ddp_static_graph", "the graph changes", ddp_static_graph=True)
refused("use_seedable_sampler=False", "the seed determines the order of rows",
        accelerator_config={"use_seedable_sampler": False})  # fmt: skip
refused("dataloader_drop_last with less than a batch", "fill no batch", dataloader_drop_last=True,
        per_device_train_batch_size=64)  # fmt: skip
refused(
    "a schedule without what it needs",
    "lr_scheduler_type='cosine_with_min_lr'",
    lr_scheduler_type="cosine_with_min_lr",
)


def observed(behaviour: Behaviour, kind: type[Trainer]) -> Any:
    """What one trainer does: its result, or the error that it raises."""
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        side = Side(kind, Path(folder))
        try:
            return behaviour.run(side)
        except Exception as error:
            error.add_note(
                f"left behind: {files(side.folder)}, {sorted(p.name for p in side.folder.iterdir())}"
            )
            return error


def as_markdown() -> str:
    words = {"differs": "differs by design", "refused": "refused", "equal": "equal"}
    order = sorted(LIST, key=lambda each: list(words).index(each.verdict))
    lines = [f"| {b.name} | {words[b.verdict]} | {b.why.replace('|', '/')} |" for b in order]
    return "\n".join(
        ["| behaviour of Trainer | DistillationTrainer | why, or the message |", "|---|---|---|", *lines]
    )
