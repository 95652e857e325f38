"""Policy optimisation, step by step: explore, answer, learn; saved, resumed, validated and logged on the way.

Everything random is drawn from (seed, step, question, iteration), so that a resumed run and a run on several processes
do what one unbroken process does.
"""

import math
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from cacovid.backbones.base import Backbone
from cacovid.budget import tokens_to_keep
from cacovid.policy.checkpoint import save_policy
from cacovid.policy.method import choose, quota_of
from cacovid.policy.network import CompressionPolicy, Habit
from cacovid.training.answering import Ask, answer_all, log_probabilities
from cacovid.training.encoded import EncodedVideo, EncodedVideos
from cacovid.training.problems import Problem
from cacovid.training.question import Question
from cacovid.training.record import Record
from cacovid.training.rewards import reward
from cacovid.training.settings import Settings
from cacovid.video import read_clip


class Trainer:
    """Trains a policy for a frozen backbone; `folder` holds state, metrics and the best policy."""

    def __init__(
        self,
        backbone: Backbone,
        problems: list[Problem],
        held_out: list[Problem],
        folder: Path,
        settings: Settings,
        accelerator: Accelerator,
    ) -> None:
        if settings.questions % accelerator.num_processes:
            raise ValueError(
                f"questions={settings.questions} a step cannot be shared by {accelerator.num_processes} processes; "
                f"take a multiple"
            )
        self.backbone, self.settings, self.accelerator, self.folder = backbone, settings, accelerator, folder
        self.problems, self.held_out = problems, held_out[: settings.validation.questions]
        backbone.model.requires_grad_(False)
        torch.manual_seed(settings.seed)
        policy = CompressionPolicy.from_llm(
            backbone.decoder.model, settings.attention, settings.layer_from_llm, settings.rope_theta
        )
        self.policy = policy.float().to(backbone.device)
        self.policy.mode_selection.requires_grad_(False)  # the release neither trains nor uses it
        self.optimizer, self.schedule = self._optimizer()
        self.encoded = EncodedVideos(int(settings.encoded_gib * 2**30))
        self.step, self.best, self.since_best = 0, -1.0, 0
        folder.mkdir(parents=True, exist_ok=True)

    def _optimizer(self) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
        own = self.settings.optimisation
        layer = list(self.policy.layers.parameters())
        inside = {id(weight) for weight in layer}
        heads = [w for w in self.policy.parameters() if w.requires_grad and id(w) not in inside]
        groups = [{"params": heads, "lr": own.lr}, {"params": layer, "lr": own.lr * own.layer_lr}]
        optimizer = torch.optim.AdamW(groups, weight_decay=own.weight_decay)
        updates = self.settings.steps * self.settings.iterations
        warmup = own.warmup * updates

        def rate(update: int) -> float:
            return min(1.0, (update + 1) / max(1.0, warmup)) * 0.5 * (1 + math.cos(math.pi * update / updates))

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    # Running

    def train(self) -> None:
        """Train, or go on where an earlier run stopped."""
        self._resume()
        main = self.accelerator.is_main_process
        record = Record(self.folder, self.step) if main else None
        bar = tqdm(
            range(self.step, self.settings.steps),
            desc="train",
            initial=self.step,
            total=self.settings.steps,
            disable=not main,
        )
        for number in bar:
            metrics = self.update(number)
            self.step = number + 1
            every = self.settings.validation.every
            if self.held_out and (self.step % every == 0 or self.step == self.settings.steps):
                metrics |= self.validate()
            if record:
                record.add(self.step, metrics)
            bar.set_postfix({name: f"{metrics[name]:.2f}" for name in ("token", "greedy") if name in metrics})
            if self.step % self.settings.save_every == 0 or self.step == self.settings.steps:
                self._save()
            patience = self.settings.validation.patience
            if patience and self.since_best >= patience:
                self._save()
                break
        if record:
            record.close()
            save_policy(self.policy, self.folder / "last", step=self.step, **asdict(self.settings))

    def update(self, number: int) -> dict[str, float]:
        """One step: its questions, each for all iterations. Mean rewards, loss and gradient norm over all processes."""
        questions = [(i, self._ask(self.problems[at])) for i, at in self._share(number)]
        sums: dict[str, list[float]] = {}
        for iteration in range(self.settings.iterations):
            losses = []
            logits = [question.logits(self.policy) for _, question in questions]
            asks = []
            for i, question in questions:
                generator = torch.Generator(self.backbone.device).manual_seed(self._seed(number, i, iteration))
                asks.append(Ask(question.prompt, question.video, question.explore(self.settings.sampler, generator)))
            worth = self._worth(asks, [question.problem for _, question in questions])
            for (_, question), own, rewards in zip(questions, logits, worth, strict=True):
                for name, value in question.learn(rewards).items():
                    sums.setdefault(name, []).append(value)
                losses.append(question.loss(own, self.settings.objective))
            loss = torch.stack(losses).mean()
            sums.setdefault("loss", []).append(float(loss.detach()))
            sums.setdefault("norm", []).append(self._step(loss))
        sums["rate"] = [question.rate for _, question in questions]
        return self._mean({name: sum(values) / len(values) for name, values in sums.items()})

    def _step(self, loss: Tensor) -> float:
        """One update with the gradients of all processes averaged; the norm before clipping."""
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        weights = [w for group in self.optimizer.param_groups for w in group["params"]]
        if self.accelerator.num_processes > 1:
            flat = torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights])
            flat = self.accelerator.reduce(flat, "mean")
            for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
                weight.grad = part.view_as(weight)
        norm = nn.utils.clip_grad_norm_(weights, self.settings.optimisation.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient of step {self.step} is {float(norm)}; take a lower learning rate "
                f"(now {self.settings.optimisation.lr:g}) and run the same command again: it resumes"
            )
        self.optimizer.step()
        self.schedule.step()
        return float(norm)

    def validate(self) -> dict[str, float]:
        """Mean reward of the policy's own selection on the held-out questions, by retention ratio."""
        own, rank = self.settings.validation, self.accelerator.process_index
        worth = {retention: 0.0 for retention in own.retentions}
        mine = self.held_out[rank :: self.accelerator.num_processes]
        for problem in mine:
            question = self._ask(problem)
            video = question.video
            for retention in own.retentions:
                budget = tokens_to_keep(retention, len(video))
                quota = quota_of(video, budget, retention, Habit(own.importance_share, own.frame_cap))
                with torch.inference_mode():
                    kept = choose(self.policy, video, quota)
                mask = torch.zeros(len(video), dtype=torch.bool, device=kept.device)
                mask[kept] = True
                (reply,) = self._answers([Ask(question.prompt, video, mask[None])])[0]
                worth[retention] += reward(problem.problem_type, reply, problem.solution)
        totals = torch.tensor([*worth.values(), len(mine)], dtype=torch.float64, device=self.backbone.device)
        *right, seen = self.accelerator.reduce(totals, "sum").tolist()
        metrics = {f"validation@{retention:g}": sum_ / seen for retention, sum_ in zip(worth, right, strict=True)}
        mean = sum(metrics.values()) / len(metrics)
        self.since_best = 0 if mean > self.best else self.since_best + 1
        if mean > self.best:
            self.best = mean
            if self.accelerator.is_main_process:
                save_policy(self.policy, self.folder / "best", step=self.step, **asdict(self.settings), **metrics)
        return metrics

    # Parts

    def _share(self, number: int) -> list[tuple[int, int]]:
        """This process's questions of a step: (number among the step's, index into the problems)."""
        size, total = self.settings.questions, len(self.problems)
        chosen = []
        for i in range(number * size, (number + 1) * size):
            order = np.random.default_rng([self.settings.seed, i // total]).permutation(total)
            chosen.append((i - number * size, int(order[i % total])))
        return chosen[self.accelerator.process_index :: self.accelerator.num_processes]

    def _seed(self, *parts: int) -> int:
        return int(np.random.SeedSequence([self.settings.seed, *parts]).generate_state(1, np.uint64)[0] >> 1)

    def _ask(self, problem: Problem) -> Question:
        """A problem with its video read and encoded; once for all its iterations."""
        content = [{"type": "video"}, {"type": "text", "text": problem.text}]
        prompt = self.backbone.template([{"role": "user", "content": content}])

        def encode() -> EncodedVideo:
            clip = read_clip(problem.video, self.backbone.frames)
            return EncodedVideo(self.backbone.encode_frames(clip.frames, frozenset()), clip.sha256, clip.rate)

        found = self.encoded.get(problem.video, encode)
        video = self.backbone.ask(found.encoded, prompt, found.clip, found.rate)
        return Question(problem, prompt, video, self.settings.rate, self.settings.memory)

    def _worth(self, asks: list[Ask], problems: list[Problem]) -> list[list[float]]:
        """What each kept set is worth."""
        if self.settings.reward == "probability":
            replies = [problem.reply for problem in problems]
            found = log_probabilities(self.backbone, asks, replies, self.settings.together)
            return [values.exp().tolist() for values in found]
        return [
            [reward(problem.problem_type, reply, problem.solution) for reply in replies]
            for problem, replies in zip(problems, self._answers(asks), strict=True)
        ]

    def _answers(self, asks: list[Ask]) -> list[list[str]]:
        limits = {"max_new_tokens": self.settings.max_new_tokens, "together": self.settings.together}
        return answer_all(self.backbone, asks, **limits)

    def _mean(self, metrics: dict[str, float]) -> dict[str, float]:
        """Averaged over processes."""
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.backbone.device)
        return dict(zip(metrics, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    # State

    @property
    def _state(self) -> Path:
        return self.folder / "state.pt"

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "counts": {"step": self.step, "best": self.best, "since_best": self.since_best},
        }
        part = self._state.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self._state)

    def _resume(self) -> None:
        if self._state.exists():
            state = torch.load(self._state, weights_only=True, map_location=self.backbone.device)
            self.policy.load_state_dict(state["policy"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            for name, value in state["counts"].items():
                setattr(self, name, value)
        self.accelerator.wait_for_everyone()
