"""Shared fixtures, and the one list of methods that the contract and the invariants run over."""

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from transformers.video_utils import VideoMetadata

from cacovid.backbones import Backbone, LlavaOnevision, Qwen2_5_VL, VideoRequest
from cacovid.method import Method
from cacovid.registry import build_method, method_names
from tiny import tiny_model, tiny_policy_folder, tiny_processor, tiny_siglip_folder
from tiny_qwen import tiny_qwen_model, tiny_qwen_processor

torch.set_num_threads(1)  # tiny tensors: threads only cost, and test workers share the cores

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("random", {"seed": 1}),
    ("fewer_frames", {"partial": False}),
    ("attention_topk", {"positions": "original"}),
    ("attention_topk", {"scope": "global"}),
    ("attention_topk", {"rounding": "round"}),
    ("attention_topk", {"rounding": "floor"}),
    ("attention_topk", {"rounding": "ceil"}),
    ("attention_topk", {"variant": "B1"}),
    ("attention_topk", {"variant": "B2"}),
    ("attention_topk", {"variant": "B3", "layer": 1}),
    ("attention_topk", {"variant": "B4"}),
    ("attention_topk", {"variant": "B5"}),
    ("attention_topk", {"variant": "B6"}),
    ("fastv", {"layer": 1}),
    ("fastv", {"layer": 3, "rounding": "floor"}),
    ("fastv", {"rows": "all", "layer": 1}),
    ("divprune", {"duplicates": "released"}),
    ("dycoke", {"loop": "fixed", "gate": "hold", "rounding": "released", "layer": 1}),
    ("dycoke", {"order": "similarity"}),
    ("visionzip", {"order": "raster", "positions": "original"}),
    ("visionzip", {"rounding": "ceil"}),
    ("visionzip", {"dominant_share": 0.5}),
    ("framefusion", {"similarity": 0.9}),
    ("framefusion", {"similarity": 0.99}),
    ("prunevid", {"order": "raster"}),
    ("prunevid", {"knobs": "solved_beta", "layer": 1}),
    ("prunevid", {"knobs": "paper", "layer": 1}),
    ("prunevid", {"scores": "causal_rope", "layer": 2}),
    ("holitom", {"order": "raster", "tau": 0.85}),
    ("holitom", {"counts": "released"}),
    ("holitom", {"inner": True, "inner_layer": 2}),
    ("fastvid", {"saliency": "received_attention", "rounding": "floor"}),
    ("fastvid", {"saliency": "received_attention", "min_segments": 1, "tau": -1.0}),
    ("flashvid", {"min_segments": 1, "segment_threshold": -1.0, "alpha": 0.4, "tree_mean": "fixed"}),
    ("flashvid", {"counts": "released", "min_segments": 3}),
    ("flashvid", {"inner": False, "selector": "v1", "positions": "original"}),
    ("flashvid", {"selector": "diversity", "layer": 2, "expansion": 1.3, "min_segments": 2}),
    ("cacovid", {"importance_share": 1.0}),
    ("cacovid", {"importance_share": 0.0}),
    ("cacovid", {"attention": "causal", "frame_cap": 4.0}),
    ("downsample+attention_topk", {"attention_topk.variant": "B1", "share": 0.5}),
    ("divprune+fastv", {"share": 0.5}),
    ("visionzip+fastv", {"visionzip.order": "raster", "fastv.layer": 1}),
]
"""Settings other than the defaults. Every registered method is tested with its defaults without being listed."""


@dataclass(frozen=True)
class Case:
    """A registered method with settings, on a backbone family."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    family: str = "llava_ov"

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.settings.items())])

    def build(self, retention: float = 1.0) -> Method:
        return build_method(self.name, retention=retention, **self._always(), **self.settings)

    def _always(self) -> dict[str, Any]:
        """What the defaults cannot name: weights that were trained for one model, and consent to go below a floor."""
        match self.name:
            case "cacovid":
                return {"policy": tiny_policy_folder(tiny_model if self.family == "llava_ov" else tiny_qwen_model)}
            case "fastvid" if "saliency" not in self.settings and self.family == "llava_ov":
                return {"head": tiny_siglip_folder()}
            case "fastvid" if "saliency" not in self.settings:
                return {"saliency": "received_attention"}  # the head is SigLIP's
            case "dycoke":
                return {"extend": True}
        return {}


CASES = [Case(name) for name in method_names()] + [Case(*variant) for variant in VARIANTS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case`: every method and variant. `pruner`: all of them that take a retention below 1."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=str, indirect=True)
    if "pruner" in metafunc.fixturenames:
        metafunc.parametrize("pruner", [c for c in CASES if c.name != "full"], ids=str, indirect=True)


@pytest.fixture
def case(request: pytest.FixtureRequest, family: str) -> Case:
    return replace(request.param, family=family)


@pytest.fixture
def pruner(request: pytest.FixtureRequest, family: str) -> Case:
    return replace(request.param, family=family)


def make_backbone(attention: str = "sdpa", family: str = "llava_ov", **sizes: int) -> Backbone:
    """Backbone over a tiny random model; flash attention needs an accelerator and half precision."""
    make = {"llava_ov": tiny_model, "qwen2_5_vl": tiny_qwen_model}[family]
    model = make(attention, **sizes).requires_grad_(False)
    if attention.startswith("flash"):
        model = model.to("cuda", torch.bfloat16)
    if family == "qwen2_5_vl":
        return Qwen2_5_VL(model, tiny_qwen_processor())
    return LlavaOnevision(model, tiny_processor(**{k: v for k, v in sizes.items() if k in ("image", "patch")}))


FLASH = pytest.param(
    "flash_attention_2",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(
            not torch.cuda.is_available() or find_spec("flash_attn") is None,
            reason="flash_attention_2 needs a CUDA device and the flash_attn package",
        ),
    ],
)


@pytest.fixture(scope="session")
def family(request: pytest.FixtureRequest) -> str:
    """Backbone family of a test; what holds for all is marked `both_families`."""
    return getattr(request, "param", "llava_ov")


@pytest.fixture(scope="session", params=["sdpa", "eager", FLASH])
def each_backbone(request: pytest.FixtureRequest, family: str) -> Backbone:
    return make_backbone(request.param, family)


@pytest.fixture(scope="session")
def backbone(family: str) -> Backbone:
    return make_backbone("sdpa", family)


@pytest.fixture(scope="session")
def eager(family: str) -> Backbone:
    return make_backbone("eager", family)


def make_request(
    backbone: Backbone,
    frames: int = 6,
    text: str = "What is it?",
    seed: int = 0,
    clip: str = "clip",
    size: tuple[int, int] = (40, 60),
) -> VideoRequest:
    """Noise video of `size` = (height, width) pixels under a chat prompt."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    content = [{"type": "video"}, {"type": "text", "text": text}]
    return VideoRequest(pixels, backbone.template([{"role": "user", "content": content}]), clip)


@pytest.fixture
def count(family: str) -> Any:
    """Number of video tokens that `ask` with so many frames makes."""
    return {"llava_ov": lambda frames: frames * 16, "qwen2_5_vl": lambda frames: -(-frames // 2) * 24}[family]


@pytest.fixture
def ask() -> Any:
    """`make_request`, for tests that need several or odd requests."""
    return make_request


@pytest.fixture
def build_backbone() -> Any:
    """`make_backbone`, for tests that change the model."""
    return make_backbone


class HideHalf(Method):
    """Toy: from layer 1 on, decoded tokens read the even video tokens at even steps, the odd ones at odd steps."""

    def visible(self, layer: int, step: int, state: Any, budget: int) -> Any:
        return None if layer == 0 else torch.arange(step % 2, len(state.video), 2)


@pytest.fixture
def hide_half() -> Method:
    """A decode-stage method: nothing is evicted, tokens come back."""
    return HideHalf()


@dataclass
class Stock:
    """What the stock model's own `generate` returns for one request."""

    ids: list[int]
    logits: list[torch.Tensor]  # float32 (V,), one a token, before any logits processor
    text: str


def run_stock(backbone: Backbone, request: VideoRequest, **settings: Any) -> Stock:
    """transformers' processor, model and `generate`, none of our code."""
    frames = torch.from_numpy(request.frames).permute(0, 3, 1, 2)
    given: dict[str, Any] = {}
    if request.rate:  # of a video that was read whole
        given["video_metadata"] = [
            VideoMetadata(total_num_frames=len(frames), fps=request.rate, frames_indices=list(range(len(frames))))
        ]
    inputs = backbone.processor(
        text=[request.prompt], videos=[frames], do_sample_frames=False, return_tensors="pt", **given
    ).to(backbone.model.device, backbone.model.dtype)
    out = backbone.model.generate(
        **inputs,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        tokenizer=backbone.tokenizer,
        **settings,
    )
    ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    text = backbone.tokenizer.decode(ids, skip_special_tokens=True)
    return Stock(ids, [row[0].float() for row in out.logits], text)


@pytest.fixture
def stock() -> Any:
    """`run_stock`."""
    return run_stock
