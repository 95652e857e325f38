"""What became of every token: followed right, and drawn in the right cell."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cacovid.budget import Flops, Spent
from cacovid.commands.look import (
    CUT,
    DROPPED,
    KEPT,
    Fates,
    Look,
    cell_edges,
    colouring,
    covered_share,
    fates,
    printable,
)
from cacovid.commands.outlines import borders, seams
from cacovid.commands.picture import columns, draw
from cacovid.commands.shade import shade
from cacovid.commands.summary import bars
from cacovid.records import Compressed

GRID = (2, 3)  # rows, columns: 6 tokens a frame


def follow(position: list[int], owner: list[int], kept: list[int]) -> Fates:
    compressed = Compressed(torch.zeros(len(position), 4), torch.tensor(position), torch.tensor(owner))
    return fates(SimpleNamespace(compressed=compressed, kept=torch.tensor(kept)), GRID)


@pytest.fixture
def pruned() -> Fates:
    """Two frames; tokens 1, 5, 6, 10 enter the LLM, 5 and 10 survive its cut."""
    owner = [-1, 0, -1, -1, -1, 1, 2, -1, -1, -1, 3, -1]
    return follow([1, 5, 6, 10], owner, [5, 10])


@pytest.fixture
def merged() -> Fates:
    """Two frames; 0, 1, 3 become one token at 1, token 8 stays alone, 6 and 11 become one at 11, which is cut."""
    owner = [0, 0, -1, 0, -1, -1, 2, -1, 1, -1, -1, 2]
    return follow([1, 8, 11], owner, [1, 8])


def make_look(found: Fates, **changes: object) -> Look:
    """White frames of 90 x 60 pixels."""
    flops = Flops(1, 0, 1, 1)
    spent = Spent(
        video_tokens=12,
        asked=2,
        measure="kept",
        slack=0,
        lenient=False,
        layers=(4, 4, 2),
        kept=2,
        decode_visible=2.0,
        equivalent=3.3,
        flops=flops,
        flops_full=flops,
    )
    given = {
        "frames": np.full((2, 60, 90, 3), 255, dtype=np.uint8),
        "indices": (0, 7),
        "seconds": (0.0, 0.7),
        "grid": GRID,
        "covered": 1.0,
        "fates": found,
        "spent": spent,
        "retention": 0.2,
        "method": "toy",
        "video": "white.mp4",
        "question": "Which $?",
        "answer": "A",
        "evidence": None,
    }
    return Look(**(given | changes))


def test_pruning_is_followed_through_both_stages(pruned):
    assert pruned.fate.tolist() == [[DROPPED, CUT, DROPPED, DROPPED, DROPPED, KEPT], [CUT, 0, 0, 0, KEPT, 0]]
    assert (pruned.group == -1).all() and pruned.colour == {}
    assert pruned.entering.tolist() == [2, 2] and pruned.kept.tolist() == [1, 1]
    assert np.argwhere(pruned.stands >= 0).tolist() == [[0, 5], [1, 4]]


def test_merging_is_followed_by_owner(merged):
    assert merged.group.tolist() == [[0, 0, -1, 0, -1, -1], [-1] * 6]
    assert merged.fate[0].tolist() == [KEPT, KEPT, DROPPED, KEPT, DROPPED, DROPPED]
    assert merged.fate[1].tolist() == [CUT, DROPPED, KEPT, DROPPED, DROPPED, CUT]
    assert merged.kept.tolist() == [1, 1] and merged.stands[0].tolist() == [-1, 0, -1, -1, -1, -1]


def test_a_token_that_moved_to_another_cell_is_drawn_as_merged():
    moved = follow([2], [0] + [-1] * 5, [2])
    assert moved.group.tolist() == [[0, -1, -1, -1, -1, -1]] and moved.stands[0, 2] == 0


def test_evidence_recall_counts_cells_that_a_token_stands_for(merged):
    evidence = np.zeros((2, 6), dtype=bool)
    evidence[0, [0, 1]] = True
    assert make_look(merged, evidence=evidence).evidence_recall == 0.5
    assert make_look(merged).evidence_recall is None


def test_drawn_cells_are_the_kept_ones(pruned):
    """Pixels of the finished page, at each cell's centre."""
    figure = draw(make_look(pruned))
    figure.canvas.draw()
    page = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    for f in range(2):
        axes = next(a for a in figure.axes if a.get_label() == f"frame {f}")
        width, height = axes.get_images()[0].get_array().shape[1::-1]
        for s in range(6):
            row, column = divmod(s, GRID[1])
            at = ((column + 0.5) * width / GRID[1], (row + 0.5) * height / GRID[0])
            x, y = axes.transData.transform(at).round().astype(int)
            around = page[page.shape[0] - y - 6 : page.shape[0] - y + 6, x - 6 : x + 6]
            white = bool((around == 255).all())
            assert white == (pruned.fate[f, s] == KEPT), f"frame {f}, row {row}, column {column}"
            striped = len(np.unique(around.reshape(-1, 3), axis=0)) > 1
            assert striped == (pruned.fate[f, s] == CUT), f"hatching at frame {f}, row {row}, column {column}"
        assert f"{pruned.entering[f]} → {pruned.kept[f]}" in axes.get_title(loc="right")


def test_dots_lie_on_the_cells_that_merged_tokens_stand_for(merged):
    axes = draw(make_look(merged)).axes[0]
    width, height = axes.get_images()[0].get_array().shape[1::-1]
    dots = [c for c in axes.collections if c.get_offsets().shape[0] == 1 and type(c).__name__ == "PathCollection"]
    assert len(dots) == 1  # in frame 0 one token stands for (row 0, column 1)
    assert np.allclose(dots[0].get_offsets(), [[1.5 * width / 3, 0.5 * height / 2]], atol=1)


def test_shading_ends_where_the_patches_end():
    """14-pixel patches cover 378 of 384 pixels: the rest of the frame is seen by no token."""
    config = SimpleNamespace(vision_config=SimpleNamespace(image_size=384, patch_size=14))
    assert covered_share(config) == 378 / 384
    assert covered_share(SimpleNamespace()) == 1.0
    frame = np.full((100, 100, 3), 255, dtype=np.uint8)
    picture = shade(frame, np.full(4, KEPT, dtype=np.int8), (2, 2), 0.9, width=100)
    assert (picture[:90, :90] == 255).all() and (picture[90:] < 255).all() and (picture[:, 90:] < 255).all()


def test_frames_are_drawn_in_their_own_aspect():
    picture = shade(np.zeros((30, 60, 3), dtype=np.uint8), np.zeros(4, dtype=np.int8), (2, 2), 1.0, width=200)
    assert picture.shape == (100, 200, 3)
    assert cell_edges(14, 384, 378 / 384)[-1] == 378


def test_borders_run_between_kept_and_dropped():
    which = np.array([[False, True, True]])
    found = {tuple(np.sort(s, axis=0).ravel().tolist()) for s in borders(which.astype(np.int64), which)}
    # x0, y0, x1, y1: above and below both cells, at the left of the first, at the right of the second
    assert found == {(1, 0, 2, 0), (2, 0, 3, 0), (1, 1, 2, 1), (2, 1, 3, 1), (1, 0, 1, 1), (3, 0, 3, 1)}
    assert seams(which).tolist() == [[[2, 0], [2, 1]]]
    inside = borders(which.astype(np.int64), which, inset=0.1)
    assert inside[..., 0].min() == pytest.approx(1.1) and inside[..., 0].max() == pytest.approx(2.9)


def test_neighbouring_groups_differ_in_colour():
    group = np.arange(24).reshape(2, 3, 4)
    colour = colouring(group)
    for one, other in ((group[1:], group[:-1]), (group[:, 1:], group[:, :-1]), (group[:, :, 1:], group[:, :, :-1])):
        assert all(colour[a] != colour[b] for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))


@pytest.mark.parametrize(("frames", "aspect", "expected"), [(8, 16 / 9, 3), (16, 1.0, 6), (32, 16 / 9, 6), (1, 2.0, 1)])
def test_frames_fill_a_page(frames, aspect, expected):
    assert columns(frames, aspect) == expected


def test_every_frame_count_is_drawn(pruned):
    for frames in (1, 9, 40):
        tiled = Fates(
            **{n: np.resize(getattr(pruned, n), (frames, 6)) for n in ("fate", "group", "stands")},
            entering=np.resize(pruned.entering, frames),
            kept=np.resize(pruned.kept, frames),
            colour={},
        )
        look = make_look(
            tiled,
            frames=np.zeros((frames, 64, 36, 3), dtype=np.uint8),
            indices=tuple(range(frames)),
            seconds=(0.0,) * frames,
        )
        figure = draw(look)
        boxes = [a.get_position() for a in figure.axes]
        assert sum(a.get_label().startswith("frame") for a in figure.axes) == frames
        assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes), "an axes leaves the page"


def test_text_is_made_printable():
    assert printable("a\n  b\x1b[31m") == "a b\\x1b[31m"


def test_bars_show_each_frames_share():
    assert bars([0, 1, 98, 196], 196) == " ▁▄█"
