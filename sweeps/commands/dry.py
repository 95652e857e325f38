"""`run --dry`: what a call would do, without doing it."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from sweeps.cells import Cell
from sweeps.estimate import ANSWER, TFLOPS, estimate, share
from sweeps.jobs import Job
from sweeps.launch import check
from sweeps.plan import Plan
from sweeps.sbatch import script

FIRST = 3  # cells and jobs that are shown as examples


def show(plan: Plan, tflops: float | None) -> None:
    """Print cells, jobs, the sbatch script where there is one, and an estimate. Raises ConfigError."""
    executor = plan.sweep.executor
    check(executor)
    print(f"{plan.sweep.name}: {len(plan.cells)} cells, {len(plan.done)} of them done in {plan.folder.path}\n")
    _print_cells(plan)
    print(f"\n{len(plan.jobs)} jobs for executor {executor.kind}, {executor.parallel} at a time")
    for job in plan.jobs[:FIRST]:
        print(f"  {job.id}  {_told(job)}")
    if len(plan.jobs) > FIRST:
        print(f"  ... and {len(plan.jobs) - FIRST} more")
    if executor.kind == "slurm" and plan.jobs:
        print("\nsbatch script:\n")
        print(script(executor, plan.folder, len(plan.jobs)))
    print()
    _print_estimate(plan, tflops)


def _print_cells(plan: Plan) -> None:
    names = {task.name: None for task in plan.sweep.tasks.values()}
    counts = Counter((cell.backbone.pretrained, cell.label, cell.task.name) for cell in plan.cells)
    for pretrained in dict.fromkeys(cell.backbone.pretrained for cell in plan.cells):
        table = Table(title=pretrained, title_justify="left", box=None, pad_edge=False)
        table.add_column("method", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right")
        for label in plan.sweep.methods:
            row = [counts[pretrained, label, name] for name in names]
            if any(row):
                table.add_row(label, *map(str, row))
        Console(width=None if Console().is_terminal else 120).print(table)
    print("\nfirst cells")
    for cell in plan.cells[:FIRST]:
        print(f"  {cell.id}  {describe(cell)}")


def describe(cell: Cell) -> str:
    """A cell in a line."""
    return f"{cell.label}, r={cell.arguments['retention']:g} {cell.arguments['budget']}, {cell.task.name}"


def _told(job: Job) -> str:
    task = job.cells[0].task
    documents = share(job, task.documents)
    some = "" if documents is None else f", {documents} documents"
    return f"{len(job.cells)} cells, {task.name}, shard {job.shard.name}{some}"


def _print_estimate(plan: Plan, tflops: float | None) -> None:
    found = estimate(plan, tflops)
    device = "CPU" if all(backbone.device == "cpu" for backbone in plan.sweep.backbones.values()) else "GPU"
    print(f"estimate: {found.hours:.3g} {device} hours")
    if found.measured:
        print(f"  {found.measured / 3600:.3g} h from the seconds a sample that {len(found.finished)} cells took here")
    if found.llm:
        rate = f"{TFLOPS if tflops is None else tflops:g} TFLOP/s"
        every = "for every question" if plan.sweep.store.kind == "off" else "once a video"
        print(f"  {found.vision / 3600:.3g} h vision tower ({every}), {found.llm / 3600:.3g} h LLM (prefill at each")
        print(
            f"  cell's schedule, answers of {ANSWER} tokens), at an assumed {rate} achieved by each device (--tflops)"
        )
        print("  not in it: reading videos, loading models, the methods' own arithmetic, idle time")
    for words in sorted(found.assumed):
        print(f"  assumed: {words}")
    for reason, cells in found.unknown.items():
        print(f"  not estimated: {reason} ({cells} cells in jobs)")
