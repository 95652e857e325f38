"""`blind-filter`: drop the training questions that the LLM answers right without the video."""

import argparse
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "blind-filter",
        help="drop training questions that need no video",
        description="Ask every question of a Video-R1 file without its video and keep those that are answered wrong. "
        "Stop it whenever you like: the same command goes on where it was.",
    )
    parser.add_argument("file", type=Path, help="JSON or JSONL in the Video-R1 layout")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write the kept rows to")
    parser.add_argument("--pretrained", required=True, help="checkpoint folder or hub id")
    parser.add_argument("--right", type=float, default=0.5, help="reward from which an answer is right (default: 0.5)")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Filter and say how many were kept."""
    from cacovid.backbones.loading import load_backbone
    from cacovid.training.blind import blind_filter

    backbone = load_backbone("auto", args.pretrained, device=args.device, dtype=args.dtype)
    kept, total = blind_filter(backbone, args.file, args.out, right=args.right, max_new_tokens=args.max_new_tokens)
    print(f"{kept} of {total} questions kept in {args.out}; the others were answered right without the video")
    return 0
