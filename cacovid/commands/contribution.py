"""`contribution`: does a method keep the tokens that contribute to right answers?"""

import argparse
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "contribution",
        help="compare methods' orders of tokens with measured contributions",
        description="On the test bed's questions: measure what each token contributes to the right answer by leaving "
        "tokens out at random, and compare with the order in which each method drops them. Stop it whenever you "
        "like: the same command goes on where it was.",
    )
    parser.add_argument(
        "methods",
        nargs="+",
        metavar="METHOD[:FIELD=VALUE,...]",
        help="a name of `methods` with its settings, e.g. attention_topk:variant=B1,layer=2",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--pretrained", default="testbed")
    parser.add_argument("--videos", type=int, default=20, help="test videos, seven questions each (default: 20)")
    parser.add_argument("--sets", type=int, default=512, help="random kept sets a question (default: 512)")
    parser.add_argument("--keep", type=float, default=0.25, help="share of tokens in a random set (default: 0.25)")
    parser.add_argument("--retention", type=float, default=0.1, help="for recall and sensitivity (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and say how to see the table."""
    from cacovid.backbones.loading import load_backbone
    from cacovid.commands.settings import parse_settings
    from cacovid.contribution.study import Contestant, Study, run_study

    contestants = []
    for text in args.methods:
        name, _, settings = text.partition(":")
        contestants.append(Contestant(text, name, parse_settings(settings.split(",") if settings else [])))
    study = Study(args.videos, args.sets, args.keep, args.retention, seed=args.seed)
    backbone = load_backbone("auto", args.pretrained, device=args.device)
    run_study(backbone, contestants, study, args.out)
    print(f"{args.out}; its table: python -m analysis contribution {args.out}")
    return 0
