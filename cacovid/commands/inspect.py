"""`inspect`: one video and one question under one method, as a picture of what was kept."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cacovid.backbones import Answer, Backbone
    from cacovid.commands.look import Look
    from cacovid.method import Method
    from cacovid.testbed.questions import Question
    from cacovid.video import Clip

EPILOG = """\
examples:
  python -m cacovid inspect holiday.mp4 "What happens after the dive?" --method attention_topk --retention 0.25 \\
      --pretrained llava-hf/llava-onevision-qwen2-7b-ov-hf -o holiday.png
  python -m cacovid inspect test-000003-digit --method attention_topk --retention 0.25 --set layer=2
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "inspect",
        help="draw which tokens of a video a method keeps",
        description="Ask one question about one video under one method, and draw the sampled frames with kept "
        "tokens clear and dropped ones dimmed, next to what was really spent.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file, or a test-bed question such as test-000003-digit")
    parser.add_argument("question", nargs="?", help="what to ask; not needed with a test-bed question")
    parser.add_argument("--method", default="full", help="a name of `methods`, or a+b (default: %(default)s)")
    parser.add_argument(
        "--retention", type=float, default=1.0, metavar="R", help="share of video tokens to keep, 0 < R <= 1"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the method; may be repeated"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="png, pdf or svg (default: VIDEO-METHOD-R.png)"
    )
    parser.add_argument(
        "--pretrained", default="testbed", help="testbed, a checkpoint folder or a hub id (default: %(default)s)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        metavar="T",
        help="frames to sample (default: what the checkpoint states, else 32)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--attn", default="sdpa", choices=["sdpa", "eager", "flash_attention_2"])
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds to read the video within")
    parser.add_argument("--json", action="store_true", help="print the audit as JSON instead of words")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer, draw, and say in a few lines what was spent."""
    from cacovid.commands.settings import parse_settings

    # What can be refused is refused before anything slow: torch, the checkpoint, the decoder.
    video, question, known = _asked(args)
    path = _output(args)
    settings = parse_settings(args.set)
    if "retention" in settings:
        raise ValueError("--set retention=...: use --retention")

    from cacovid.commands import picture, summary
    from cacovid.registry import build_method

    method = build_method(args.method, retention=args.retention, **settings)
    backbone = _load(args)
    clip = _read(args, video, backbone)
    answer = _answer(backbone, method, clip, question, args.max_new_tokens)
    label = ", ".join([args.method, *(f"{name}={value}" for name, value in settings.items())])
    look = _look(backbone, clip, answer, question, label, args, known)

    picture.save(look, path)
    if args.json:
        print(json.dumps(summary.as_json(look, clip, answer, path), indent=2))
    else:
        summary.show(look, clip, answer, path)
    return 0


def _asked(args: argparse.Namespace) -> "tuple[Path, str, Question | None]":
    """Video file, question text, and the test bed's own record of the question where it is one."""
    from cacovid.commands import evidence

    if not Path(args.video).exists() and (found := evidence.from_id(args.video)):
        video, known = found
        if args.question:
            return video, args.question, evidence.from_file(video, args.question)
        return video, known.prompt(), known
    if not args.question:
        raise ValueError(f"no question about {args.video}; give one: inspect VIDEO 'What happens?' --method ...")
    video = Path(args.video)
    if not video.exists():
        raise FileNotFoundError(f"no video at {video}; give a file, or a test-bed question such as test-000003-digit")
    return video, args.question, evidence.from_file(video, args.question)


def _output(args: argparse.Namespace) -> Path:
    name = f"{Path(args.video).stem}-{args.method}-{args.retention:g}.png"
    path: Path = args.output or Path(name)
    if path.suffix not in {".png", ".pdf", ".svg"}:
        raise ValueError(f"--output {path}, expected a name that ends in .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--output {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"--output {path}: the folder {path.parent.resolve()} is not writable")
    return path


def _read(args: argparse.Namespace, video: Path, backbone: "Backbone") -> "Clip":
    from cacovid.video import VideoWorker

    frames = backbone.frames if args.frames is None else args.frames
    with VideoWorker() as worker:
        return worker.read(video, frames, timeout=args.timeout)


def _load(args: argparse.Namespace) -> "Backbone":
    from transformers.utils import logging

    from cacovid.backbones import load_backbone

    logging.disable_progress_bar()
    return load_backbone("auto", args.pretrained, device=args.device, dtype=args.dtype, attn_implementation=args.attn)


def _answer(backbone: "Backbone", method: "Method", clip: "Clip", question: str, limit: int) -> "Answer":
    from cacovid.backbones import VideoRequest

    content = [{"type": "video"}, {"type": "text", "text": question}]
    prompt = backbone.template([{"role": "user", "content": content}])
    request = VideoRequest(clip.frames, prompt, clip.sha256, clip.rate)
    return backbone.answer([request], method, max_new_tokens=limit)[0]


def _look(
    backbone: "Backbone",
    clip: "Clip",
    answer: "Answer",
    question: str,
    label: str,
    args: argparse.Namespace,
    known: "Question | None",
) -> "Look":
    from cacovid.commands import evidence, look

    every = backbone.merged_frames  # the first of the frames that are one frame of tokens stands for it
    return look.Look(
        frames=clip.frames[::every],
        indices=clip.indices[::every],
        seconds=clip.seconds[::every],
        grid=answer.grid,
        covered=look.covered_share(backbone.model.config),
        fates=look.fates(answer, answer.grid),
        spent=answer.spent,
        retention=args.retention,
        method=label,
        video=Path(args.video).name,
        question=question,
        answer=answer.text,
        evidence=evidence.cells(known, clip.indices, answer.grid, every) if known else None,
    )
