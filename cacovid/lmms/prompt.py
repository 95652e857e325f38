"""From an lmms-eval request, simple or chat, to one chat-templated prompt and its media."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.protocol import ChatMessages
from PIL import Image

from cacovid.backbones import Backbone
from cacovid.errors import PromptError
from cacovid.runs.sample import Modality

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_SOUNDS = {".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"}

Content = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request with lmms-eval's two tuple shapes made one."""

    context: str
    media: Callable[[Any], Any]  # the task's doc_to_visual or doc_to_messages, as a bound method
    generation: dict[str, Any]
    doc_id: int
    task: str
    split: str

    @classmethod
    def of(cls, instance: Instance, simple: bool) -> "Request":
        """From the request's arguments (lmms-eval 0.7: six in both forms, in another order)."""
        first, second, third, doc_id, task, split = instance.args
        media, generation = (third, second) if simple else (second, third)
        return cls(first, media, generation, doc_id, task, split)

    @property
    def owner(self) -> Any:
        """The lmms-eval task that made this request. Raises PromptError where there is none (agentic tasks)."""
        owner = getattr(self.media, "__self__", None)
        if owner is None or not hasattr(owner, "process_results"):
            raise PromptError(
                f"task {self.task} makes its requests while it runs (agentic), which cannot be recorded or resumed; "
                f"such tasks are not supported"
            )
        return owner

    def messages(self, document: Any, simple: bool) -> list[dict[str, Any]]:
        """Chat messages. A task's sys.exit over a missing file becomes FileNotFoundError: one sample, not the run."""
        try:
            made = self.media(document)
        except SystemExit as error:
            raise FileNotFoundError(str(error.code)) from None
        if not simple:
            return ChatMessages(messages=made).model_dump()["messages"]
        visuals = made if isinstance(made, list | tuple) else [] if made is None else [made]
        content = [_classify(v) for v in visuals]
        return [{"role": "user", "content": [*content, {"type": "text", "text": self.context}]}]


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the model reads: templated text with placeholders, and the media that fill them."""

    text: str
    modality: Modality
    video: str | None
    images: list[Image.Image]


def build_prompt(messages: list[dict[str, Any]], backbone: Backbone) -> Prompt:
    """Template the messages and collect their media.

    Raises PromptError for two videos, a video beside images, sound, a video segment, or placeholders written in
    the text that do not match the media; FileNotFoundError for a missing image.
    """
    parts = [part for message in messages for part in message["content"]]
    videos = [_path(p) for p in parts if p["type"] == "video"]
    images = [_image(p["url"]) for p in parts if p["type"] == "image"]
    if any(p["type"] == "audio" for p in parts):
        raise PromptError("the request has sound; this model takes one video, images, or text")
    if len(videos) > 1:
        raise PromptError(f"the request has {len(videos)} videos, expected one: {', '.join(videos)}")
    if videos and images:
        raise PromptError(f"the request has a video and {len(images)} images; expected one video, or images only")
    tokens = {"image": backbone.processor.image_token, "video": backbone.processor.video_token}
    text = backbone.template([{"role": m["role"], "content": _content(m["content"], tokens)} for m in messages])
    for kind, count in (("image", len(images)), ("video", len(videos))):
        if (found := text.count(tokens[kind])) != count:
            raise PromptError(
                f"the prompt holds {found} {kind} placeholders ({tokens[kind]}) for {count} {kind}s; the question's "
                f"text must hold one for each, or none"
            )
    modality: Modality = "video" if videos else "image" if images else "text"
    return Prompt(text, modality, videos[0] if videos else None, images)


def _content(parts: list[Content], tokens: dict[str, str]) -> list[Content]:
    """Parts for the chat template. Media whose placeholders stand in the text already are not added again."""
    text = "".join(p["text"] for p in parts if p["type"] == "text")
    out = []
    for part in parts:
        kind = part["type"]
        if kind == "text":
            out.append({"type": "text", "text": part["text"]})
        elif tokens[kind] not in text:
            out.append({"type": kind})
    return out


def _classify(visual: Any) -> Content:
    """What a task's doc_to_visual returned, as lmms-eval itself tells the kinds apart."""
    if isinstance(visual, Image.Image):
        return {"type": "image", "url": visual}
    if isinstance(visual, dict):
        if "array" in visual or visual.get("type") == "audio":
            return {"type": "audio", "url": visual}
        return {"type": visual.get("type", "video"), "url": visual.get("url") or visual.get("path"), **visual}
    if isinstance(visual, str | Path):
        suffix = Path(visual).suffix.lower()
        return {"type": "image" if suffix in _IMAGES else "audio" if suffix in _SOUNDS else "video", "url": visual}
    raise PromptError(f"a visual of type {type(visual).__name__}, expected a video path or an image")


def _path(part: Content) -> str:
    url = part["url"]
    segment = [part.get(k) for k in ("start_time", "end_time", "video_start", "video_end")]
    if isinstance(url, dict) or any(value is not None for value in segment):
        raise PromptError("the request asks for a segment of a video; only whole files are supported")
    if not isinstance(url, str | Path):
        raise PromptError(f"a video of type {type(url).__name__}, expected the path of a file")
    return str(url).removeprefix("file://")


def _image(url: Any) -> Image.Image:
    return (url if isinstance(url, Image.Image) else Image.open(url)).convert("RGB")
