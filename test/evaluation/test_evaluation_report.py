from __future__ import annotations

from momap_ros.evaluation.report import PAPER, classic_table, number, standing_table, table

RESULT = {
    "split": "val",
    "condition": "true, text",
    "predictor": "ours, 4 steps",
    "told": "",
    "samples": 3,
    "roles": {"acted": {"ade_m": {"best": {"value": 0.0226, "low": 0.0201, "high": 0.0254, "samples": 3}, "mean": {}}}},
    "chance": {"value": 0.25, "samples": 3},
}


def test_numbers_carry_their_interval_where_there_is_one() -> None:
    path = ("roles", "acted", "ade_m", "best")
    assert number(RESULT, *path, scale=1e3, digits=1, interval=True) == "22.6 [20.1, 25.4]"
    assert number(RESULT, *path, scale=1e3, digits=1) == "22.6"
    assert number(RESULT, "chance", interval=True) == "0.250"
    assert number(RESULT, "roles", "acted", "ade_m", "mean") == number(RESULT, "roles", "robot", "ade_m") == "-"
    assert number(RESULT, "samples", digits=0) == "3"


def test_tables_have_a_cell_per_column() -> None:
    header, rule, row, end = table([RESULT], [("n", lambda result: str(result["samples"])), ("a", lambda _: "b")])
    assert (header, rule, row, end) == ("| n | a |", "|---|---|", "| 3 | b |", "")


def test_baselines_stand_beside_the_model_on_the_same_split_and_condition() -> None:
    def other(predictor: str, millimetres: float, **changed: str) -> dict[str, object]:
        figures = {"value": millimetres / 1e3, "samples": 3}
        roles = {"acted": {"ade_m": {"best": figures, "mean": figures}}}
        return RESULT | {"predictor": predictor, "told": "something", "roles": roles} | changed

    results = [
        RESULT,
        other("skill mean", 49.4),
        other("retrieval", 63.5),
        other("skill mean", 1.0, split="objects"),
        other("skill mean", 2.0, condition="tabletop, text"),
        RESULT | {"predictor": "static"},
    ]
    header, _, row, *_ = classic_table(results)
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["skill mean*"] == "49.4"
    assert cells["retrieval min*"] == cells["retrieval mean*"] == "63.5"
    assert cells["**ours min**"] == "22.6"
    assert cells["robot min"] == "-"
    assert sum(line.startswith("| val") for line in classic_table(results)) == 1


def test_a_model_is_told_in_which_columns_another_is_better() -> None:
    def scored(predictor: str, told: str = "", **better: float) -> dict[str, object]:
        figures = {metric: {"best": {"value": better.get(metric, 0.5)}} for metric, *_ in PAPER}
        return RESULT | {"predictor": predictor, "told": told, "roles": {"all": figures}}

    results = [
        scored("ours", q_acc_4=0.4, ate_dtw_m=0.3, ate_dtw_depths=0.9),  # depths say the same again
        scored("flow", q_acc_4=0.6, local_dist_diff_m=0.2),
        scored("vae", q_acc_4=0.45, fg_mask_iou=0.1),
        scored("static", local_dist_diff_m=0.1),
        scored("retrieval", told="the skill", ate_dtw_m=0.0),
        scored("flow", ate_dtw_m=0.0) | {"split": "objects"},
    ]
    lines = standing_table(results, "all")
    header, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert header[1::2] == ["best of the models", "better than static", "better than retrieval*"]
    cells = {row[0].removeprefix("val, true, text: "): " / ".join(row[1:]) for row in rows}
    assert cells == {
        "ours": "6 of 8 / local_dist_diff (flow), q_acc_4 (flow) / 6 of 8 / local_dist_diff, q_acc_4 / "
        "6 of 8 / ate_dtw, q_acc_4",
        "flow": "7 of 8 / ate_dtw (ours) / 7 of 8 / local_dist_diff / 7 of 8 / ate_dtw",
        "vae": "4 of 8 / fg_mask_iou (ours), ate_dtw (ours), local_dist_diff (flow), q_acc_4 (flow) / "
        "5 of 8 / fg_mask_iou, local_dist_diff, q_acc_4 / 5 of 8 / fg_mask_iou, ate_dtw, q_acc_4",
        "objects, true, text: flow": "- / - / - / - / - / -",
    }
    assert standing_table([results[3]], "all") == []
