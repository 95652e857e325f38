"""Every setting of a training run; defaults are the paper's, configs change them for the test bed and ablations."""

from dataclasses import dataclass, field
from typing import Literal

from cacovid.policy.network import Attention
from cacovid.training.objective import Objective
from cacovid.training.rate import AdaptiveRate
from cacovid.training.sampling import Sampler

RewardKind = Literal["answer", "probability"]
"""What a rollout is worth. `answer`: its greedy reply, scored by kind of question, as in the paper. `probability`: the
probability of the right reply, which is what the former is on average over sampled replies, without its noise."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW: norm and heads at `lr`, the decoder layer at `layer_lr` of that; cosine to zero after the warm-up."""

    lr: float = 1e-6
    layer_lr: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    warmup: float = 0.0  # share of all updates


@dataclass(frozen=True)
class Validation:
    """How held-out questions are asked: the policy's own selection at each retention ratio."""

    every: int = 100  # steps
    questions: int = 200
    retentions: tuple[float, ...] = (0.1,)
    importance_share: float = 1.0
    frame_cap: float = 1.5
    patience: int = 0  # validations without a new best after which training stops; 0 = never


@dataclass(frozen=True)
class Settings:
    """A training run. `questions` a step over all processes, each for `iterations` updates."""

    steps: int
    questions: int = 8
    iterations: int = 5
    seed: int = 0
    attention: Attention = "bidirectional"
    layer_from_llm: bool = True  # False: a random layer (an ablation)
    rope_theta: float | None = None  # base of the policy's rotary positions; None: the LLM's
    reward: RewardKind = "answer"
    memory: bool = True  # False: an update learns from its own iteration alone (an ablation)
    max_new_tokens: int = 16
    together: int = 256  # sequences that the LLM answers as one batch
    encoded_gib: float = 1.0  # encoded videos that are kept in memory for their other questions
    save_every: int = 20  # steps
    optimisation: Optimisation = field(default_factory=Optimisation)
    validation: Validation = field(default_factory=Validation)
    sampler: Sampler = field(default_factory=Sampler)
    objective: Objective = field(default_factory=Objective)
    rate: AdaptiveRate = field(default_factory=AdaptiveRate)

    def __post_init__(self) -> None:
        for name in ("steps", "questions", "iterations", "max_new_tokens", "together", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}, expected at least 1")
        if self.rope_theta is not None and self.rope_theta <= 1:
            raise ValueError(f"rope_theta={self.rope_theta}, expected a base above 1, or null for the LLM's")
