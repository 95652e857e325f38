"""One small world a session: a tiny checkpoint, three videos, a broken one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lmms.scene import make_video, save_checkpoint, write_task


@dataclass(frozen=True)
class World:
    """Folders and files that the plugin's tests evaluate on."""

    root: Path
    checkpoint: Path
    videos: list[str]
    broken: str  # an mp4 cut in half

    def evaluate(self, folder: Path, documents: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """lmms-eval's own `simple_evaluate` on a task of these documents; runs go to `folder`/runs."""
        from lmms_eval.evaluator import simple_evaluate
        from lmms_eval.tasks import TaskManager

        tasks = write_task(folder / "task", "small", documents, **options.pop("files", {}))
        model, settings = options.pop("model", "random_llava_ov"), options.pop("settings", {})
        return simple_evaluate(
            model,
            model_args={
                "pretrained": str(self.checkpoint),
                "retention": 0.25,
                "device": "cpu",
                "max_frames_num": 4,
                "results_dir": str(folder / "runs"),
                **settings,
            },
            tasks=options.pop("tasks", ["small"]),
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False, model_name=model),
            bootstrap_iters=0,
            batch_size=options.pop("batch_size", 1),
            **options,
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    patch = pytest.MonkeyPatch()
    patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(root / "datasets"))
    patch.setenv("HF_HUB_OFFLINE", "1")
    videos = [make_video(root / f"{n}.mp4", n) for n in range(3)]
    broken = root / "broken.mp4"
    broken.write_bytes(Path(videos[0]).read_bytes()[:2000])
    yield World(root, save_checkpoint(root / "checkpoint"), videos, str(broken))
    patch.undo()


@pytest.fixture
def as_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the plugin believe that it runs inside the `lmms-eval` command."""
    import sys
    import types

    def pretend() -> None:
        monkeypatch.setitem(sys.modules, "lmms_eval.__main__", types.ModuleType("lmms_eval.__main__"))

    return pretend
