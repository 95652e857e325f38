"""`train`: policy optimisation from a Hydra config."""

import argparse


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help="train a CaCoVID policy",
        description="Train a CaCoVID policy for a frozen LLM. Stop it whenever you like: the same command goes on "
        "where it was. On several GPUs: accelerate launch --num_processes N -m cacovid train ...",
    )
    parser.add_argument("--config", default="video_r1", help="a config of cacovid/training/conf (default: video_r1)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, e.g. settings.steps=500")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and say where the policy is."""
    from cacovid.training.run import read_run, train

    folder = train(read_run(args.config, args.overrides))
    best = folder / "best"
    print(best if best.exists() else folder / "last")
    return 0
