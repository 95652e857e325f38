"""Made-up benchmarks with a known truth: two methods, their seeds, and questions that share a video's difficulty."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from analysis.stats.clusters import Codes, Floats
from analysis.stats.measured import Pairs, Settings
from analysis.stats.questions import Questions


@dataclass(frozen=True)
class World:
    """A question is answered right where a sum of normal effects is above 0."""

    videos: int
    questions: tuple[int, int]  # least and most of a video
    level: float = 0.8  # of the reference, in standard deviations of one answer: its accuracy
    effect: float = 0.3  # how much lower the method's is
    alike: float = 0.5  # share of the questions whose answer the method leaves as it is
    shared: float = 0.7  # deviation of the videos' difficulty, the same for both
    own: float = 0.5  # deviation of what the method makes of a video, for better or worse
    seeds: int = 1  # of the method
    seed: float = 0.0  # deviation of the seeds' skill
    apart: bool = False  # each seed leaves other questions as they are, and does other things to a video

    @property
    def accuracy(self) -> float:
        """The reference's true one."""
        return float(norm.cdf(self.level / np.sqrt(1 + self.shared**2)))

    @property
    def difference(self) -> float:
        """The true one: method - reference, over all videos and seeds."""
        common = 1 + self.shared**2
        method = norm.cdf((self.level - self.effect) / np.sqrt(common + self.own**2 + self.seed**2))
        return float((1 - self.alike) * (method - self.accuracy))

    def equal(self) -> "World":
        """The same with a true difference of 0."""
        common = 1 + self.shared**2
        effect = self.level * (1 - np.sqrt((common + self.own**2 + self.seed**2) / common))
        return replace(self, effect=float(effect))

    def draw(self, benchmarks: int, seed: int) -> tuple[Settings, Pairs]:
        """That many benchmarks as settings, each of them a method and its reference."""
        rng = np.random.default_rng(seed)
        video = np.repeat(np.arange(self.videos), rng.integers(self.questions[0], self.questions[1] + 1, self.videos))
        runs, scores = [], []
        for number in range(benchmarks):
            difficulty = self.level + rng.normal(0, self.shared, self.videos)[video]
            own, changed = self._changes(rng, video)
            reference = difficulty + rng.normal(size=len(video)) > 0
            for of in range(self.seeds):
                if of and self.apart:
                    own, changed = self._changes(rng, video)
                skill = rng.normal(0, self.seed) if self.seed else 0.0
                answer = difficulty + own + skill + rng.normal(size=len(video)) > 0
                scores.append(np.where(changed, answer, reference))
                runs.append(f"{number} seed {of}")
            scores.append(reference)
            runs.append(f"{number} reference")
        questions = Questions(pd.Index(runs), np.array(scores, dtype=float).T, video, categories=None)
        names = [[f"{n} seed {of}" for of in range(self.seeds)] for n in range(benchmarks)]
        names += [[f"{n} reference"] for n in range(benchmarks)]
        return Settings(questions, names), [(n, benchmarks + n) for n in range(benchmarks)]

    def _changes(self, rng: np.random.Generator, video: Codes) -> tuple[Floats, NDArray[np.bool_]]:
        """What the method makes of each question's video, and the questions whose answer it may change."""
        own = rng.normal(0, self.own, self.videos)[video] - self.effect
        return own, rng.random(len(video)) >= self.alike
