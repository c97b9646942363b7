"""TRL's GRPO trainer with what a long run needs.

Checkpoints appear complete or not at all, validation decodes under the prompts of inference and keeps the best policy,
the parts of a step are timed, and a loss that is not finite stops the run before it reaches a checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import GenerationConfig, PrinterCallback, TrainerCallback
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from wise_edge.errors import WiseEdgeError
from wise_edge.training.common.pace import Pace
from wise_edge.training.common.step_log import STEPS, VALIDATIONS, append_record
from wise_edge.training.wise.best import BestPolicy
from wise_edge.training.wise.checkpoints import checkpoint_name, drop_old_checkpoints, publish, staging_folder
from wise_edge.training.wise.config import WiseConfig
from wise_edge.training.wise.report import draw_wise_curves, save_samples
from wise_edge.training.wise.rewards import RewardFunctions
from wise_edge.training.wise.similarity import TransformerEncoder
from wise_edge.training.wise.validation import Figures, Validator

_SHOWN = {"reward": "reward", "rewards/box_iou/mean": "iou", "rationale_tokens": "tokens", "kl": "kl", "step_time": "s"}
"""Logged figure -> its name in the line of a step."""


class WiseTrainer(GRPOTrainer):
    """GRPO of a WISE policy.

    Args:
        config: the recipe.
        out: folder of the run.
        validator: decodes held-out data.
        rewards: what completions are rewarded for.
        **arguments: arguments of TRL's trainer.
    """

    def __init__(
        self, config: WiseConfig, out: Path, validator: Validator, rewards: RewardFunctions, **arguments: Any
    ) -> None:
        self._config = config
        self._out = out
        self._validator = validator
        self._rewards = rewards
        self._stopped = False
        self._pace: Pace | None = None
        self._sampled: int | None = None
        self._validated: tuple[int, dict[str, float]] | None = None
        super().__init__(reward_funcs=list[Any](rewards.functions()), **arguments)
        keep_adapter_precise(self.model)
        keep_generation_config_savable(self.model)
        self.remove_callback(PrinterCallback)
        self.add_callback(_RecipeIntervals())

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End the run after the current step, with a checkpoint."""
        self._stopped = True

    def training_step(self, *arguments: Any) -> Any:
        """Take TRL's step; raise WiseEdgeError if the loss is not finite."""
        loss = super().training_step(*arguments)  # type: ignore[no-untyped-call]
        self._check_finite(float(loss), "loss", self.state.global_step + 1)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *rest: Any, **named: Any) -> None:
        if grad_norm is not None:
            self._check_finite(float(grad_norm), "gradient", self.state.global_step)
        self._stopped = self._anywhere(self._stopped)
        if self._stopped and not self.control.should_training_stop:  # transformers calls this again after the last step
            self.control.should_save = self.control.should_training_stop = True
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *rest, **named)

    def _anywhere(self, here: bool) -> bool:
        """Return whether something holds on any process; all processes must call this."""
        flag = torch.tensor(float(here), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _check_finite(self, value: float, what: str, step: int) -> None:
        if not math.isfinite(value):
            raise WiseEdgeError(
                f"the {what} is not finite at step {step}; the last checkpoint is kept; lower learning_rate"
                " or clip_norm and continue with --resume --accept-changes"
            )

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
        start = perf_counter()
        try:
            result = super()._generate_single_turn(*arguments, **named)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if "probability tensor" in str(error):  # torch does not sample from NaN
                self._check_finite(math.nan, "distribution of the next token", self.state.global_step + 1)
            raise
        self._log_metric("time/generation_s", perf_counter() - start)
        return result

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> Any:
        start = perf_counter()
        with self._cut_rationales_counted():
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
        self._log_metric("time/rewards_s", perf_counter() - start)
        read = self._rewards.reader.read(completions)
        self._log_metric("rationale_tokens", self._mean_tokens([each.rationale for each in read]))
        if self.is_world_process_zero() and self.state.global_step % self._config.samples_every == 0:
            table = {name: rewards[: len(read), i].tolist() for i, name in enumerate(self.reward_func_names)}
            path = self._out / "samples" / f"step-{self.state.global_step:05d}.jsonl"
            more = self._sampled == self.state.global_step  # a step may generate its completions in parts
            save_samples(path, [str(row["sample"]) for row in inputs], [each.text for each in read], table, more)
            self._sampled = self.state.global_step
        return rewards

    @contextmanager
    def _cut_rationales_counted(self) -> Iterator[None]:
        """Log the share of rationales that the sentence encoder cuts in the block; say so the first time."""
        encoder = self._rewards.encoder
        if not isinstance(encoder, TransformerEncoder):
            yield
            return
        encoded, cut = encoder.encoded, encoder.cut
        yield
        if encoder.encoded > encoded:
            self._log_metric("rationales_cut", (encoder.cut - cut) / (encoder.encoded - encoded))
        if encoder.cut and not cut and self.is_world_process_zero():
            print(f"note: {encoder.describe_cut(encoder.encoded - encoded, encoder.cut)}", file=sys.stderr)

    def _mean_tokens(self, texts: list[str]) -> float:
        return sum(map(len, self._tokenizer(texts)["input_ids"])) / len(texts)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as transformers does, and steps to `train.jsonl` and stderr.

        The summary that transformers logs at the end has no reward. It is left out, since it is of the steps since the
        last resumption alone.
        """
        super().log(logs, start_time)
        if self.is_world_process_zero() and "reward" in logs:
            known = {name: value for name, value in logs.items() if value is None or math.isfinite(value)}
            append_record(self._out / STEPS, {"step": self.state.global_step, **dict.fromkeys(logs), **known})
            step = self.state.global_step
            self._pace = self._pace or Pace(step, self._config.steps)
            print(f"step {step}/{self._config.steps} {_line(logs)}{self._pace.left(step)}", file=sys.stderr)

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Validate; transformers calls this when it is due, and twice after the last step."""
        if self._validated is None or self._validated[0] != self.state.global_step:
            self._validated = self.state.global_step, self._validate()
        return self._validated[1]

    def _validate(self) -> dict[str, float]:
        start = perf_counter()
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model:
            model.eval()
            figures = self._validator.run(model)
            model.train()
        self._keep_if_best(figures)
        if self.is_world_process_zero():
            self._record(figures, perf_counter() - start)
        return {
            f"eval_{variant}_{name}": value
            for variant, item in figures.items()
            for name, value in dataclasses.asdict(item).items()
        }

    def _keep_if_best(self, figures: dict[str, Figures]) -> None:
        best = BestPolicy(self._out, self._config.validation.tolerance)
        step = self.state.global_step
        better = best.beats(step, figures)
        self.accelerator.wait_for_everyone()
        if better:
            self.save_model(str(best.staged))
            self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            if better:
                best.keep(step, figures)
            else:
                best.reject(step, figures)
        self.accelerator.wait_for_everyone()

    def _record(self, figures: Any, seconds: float) -> None:
        record = {name: dataclasses.asdict(item) for name, item in figures.items()}
        append_record(self._out / VALIDATIONS, {"step": self.state.global_step, **record, "seconds": round(seconds, 1)})
        draw_wise_curves(self._out)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the states with the recipe's learning rate and decay; transformers would keep the checkpoint's."""
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[no-untyped-call]
        if checkpoint is None or self.optimizer is None or self.lr_scheduler is None:
            return
        schedule, rate = self.lr_scheduler, self.args.learning_rate
        schedule.base_lrs = [rate] * len(self.optimizer.param_groups)
        for group, share in zip(self.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group["initial_lr"], group["lr"] = rate, rate * share(schedule.last_epoch)
            group["weight_decay"] = group["weight_decay"] and self.args.weight_decay  # biases and norms have none
        schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]  # what is logged for the next step

    def _get_output_dir(self, trial: Any) -> str:
        return str(staging_folder(self._out))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            publish(self._out, checkpoint_name(self.state.global_step))
            drop_old_checkpoints(self._out, self.state.global_step, self._config.checkpoints_kept)
        self.accelerator.wait_for_everyone()


class _RecipeIntervals(TrainerCallback):
    """Save and validate as often as the recipe says; transformers would do so as the checkpoint's recipe said."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


def keep_adapter_precise(model: Any) -> None:
    """Keep trained weights in float32: TRL makes an adapter on 4-bit weights bfloat16, which rounds updates away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def keep_generation_config_savable(model: Any) -> None:
    """Reduce a generation config that contradicts itself to its tokens.

    Some published folders have greedy decoding with a temperature. transformers loads that, but refuses to save it once
    the trainer has set the padding token in it, which would end the run at its first checkpoint.
    """
    config = model.generation_config
    try:
        config.validate(strict=True)
    except ValueError:
        tokens = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**tokens)


def _line(logs: dict[str, float]) -> str:
    return " ".join(f"{name} {float(logs[key]):.3g}" for key, name in _SHOWN.items() if key in logs)
