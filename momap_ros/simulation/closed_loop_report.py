"""What many closed-loop episodes came to: success rates with their uncertainty, and why the others failed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_Z_95 = 1.959963984540054  # of the standard normal distribution, two-sided 95 %


@dataclass(frozen=True)
class Row:
    """One episode under one policy; a line of rows.jsonl.

    Attributes:
        split: name of the split.
        index: episode within the split.
        skill: its skill.
        kind: kind of the acted object or part.
        policy: label of the policy.
        success: the skill's own check.
        failure: one of closed_loop.FAILURES; "" after a success.
        details: figures behind it.
        contact: how the object was touched; "" where it never was.
        plan_s: seconds that the gripper's way was to take.
        sentence: what was asked for.
        replan_every_s: seconds between two forecasts while the object was held; 0 = one forecast.
        replans_taken: of these forecasts, those whose way was followed.
        replans_kept: those after which the plan before was kept.
        replans_stopped: those after which the gripper stopped.
    """

    split: str
    index: int
    skill: str
    kind: str
    policy: str
    success: bool
    failure: str
    details: str
    contact: str
    plan_s: float
    sentence: str
    replan_every_s: float = 0.0
    replans_taken: int = 0
    replans_kept: int = 0
    replans_stopped: int = 0

    def as_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate: E. Wilson 1927, doi:10.1080/01621459.1927.10502953; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Rates per policy, over all episodes and per skill, and how often each class of failure occurred."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    summary = {}
    for policy in policies:
        own = [row for row in rows if row.policy == policy]
        skills = sorted({row.skill for row in own})
        summary[policy] = {
            "all": _rate(own),
            "by_skill": {skill: _rate([row for row in own if row.skill == skill]) for skill in skills},
            "failures": dict(Counter(row.failure for row in own if row.failure).most_common()),
            "replans": {
                "every_s": own[0].replan_every_s,
                "taken": sum(row.replans_taken for row in own),
                "kept": sum(row.replans_kept for row in own),
                "stopped": sum(row.replans_stopped for row in own),
            },
        }
    return summary


def _rate(rows: Sequence[Row]) -> dict[str, Any]:
    successes = sum(row.success for row in rows)
    low, high = wilson_interval(successes, len(rows))
    return {"successes": successes, "episodes": len(rows), "rate": successes / len(rows), "low": low, "high": high}


def markdown(split: str, summary: dict[str, Any], left_out: dict[str, int]) -> str:
    """Tables of policies, skills, classes of failure, and of replans where there were any; and what was left out."""
    policies = list(summary)
    lines = [f"# Closed loop on {split}", "", "| policy | success | rate | 95 % interval | of the oracle |"]
    lines.append("|---|---|---|---|---|")
    ceiling = summary.get("oracle", {}).get("all", {}).get("rate", 0.0)
    for policy in policies:
        rate = summary[policy]["all"]
        share = f"{rate['rate'] / ceiling:.2f}" if ceiling else "-"
        interval = f"{rate['low']:.3f} to {rate['high']:.3f}"
        lines.append(
            f"| {policy} | {rate['successes']}/{rate['episodes']} | {rate['rate']:.3f} | {interval} | {share} |"
        )
    skills = sorted({skill for policy in policies for skill in summary[policy]["by_skill"]})
    lines += ["", "| skill | " + " | ".join(policies) + " |", "|---" * (1 + len(policies)) + "|"]
    for skill in skills:
        rates = (summary[policy]["by_skill"].get(skill) for policy in policies)
        cells = (f"{rate['successes']}/{rate['episodes']}" if rate else "-" for rate in rates)
        lines.append(f"| {skill} | " + " | ".join(cells) + " |")
    failures = list(dict.fromkeys(name for policy in policies for name in summary[policy]["failures"]))
    lines += ["", "| failure | " + " | ".join(policies) + " |", "|---" * (1 + len(policies)) + "|"]
    for name in failures:
        cells = (str(summary[policy]["failures"].get(name, 0)) for policy in policies)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    replans = {policy: summary[policy]["replans"] for policy in policies if summary[policy]["replans"]["every_s"]}
    if replans:
        lines += ["", "| replans | taken | kept | stopped |", "|---|---|---|---|"]
    for policy, count in replans.items():
        lines.append(f"| {policy} | {count['taken']} | {count['kept']} | {count['stopped']} |")
    left = ", ".join(f"{reason} {count}" for reason, count in sorted(left_out.items()))
    return "\n".join([*lines, "", f"Episodes left out: {left or 'none'}.", ""])
