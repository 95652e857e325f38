"""`tasks`: where lmms-eval finds the suite's own tasks."""

import argparse


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "tasks",
        help="print the folder for lmms-eval --include_path",
        description="Print the folder of the suite's lmms-eval tasks, and nothing else: "
        'lmms-eval --include_path "$(python -m cacovid tasks)" --tasks evidence_vqa ...',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the folder."""
    from cacovid.lmms import tasks_dir

    print(tasks_dir())
    return 0
