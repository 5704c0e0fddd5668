"""`spar sprt`: the gate's statistics as a calculator."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sparring.errors import BadInput
from sparring.statistics.elo import measure
from sparring.statistics.sprt import Model, bounds, llr, llr_of_means, state_of


def sprt(
    counts: Annotated[str, typer.Option(help="2, 3 or 5 counts from worst to best; 5 are game pairs.")],
    model: Annotated[str, typer.Option(help="normalized or logistic Elo.")] = "normalized",
    elo0: Annotated[float, typer.Option(help="Elo of H0.")] = 0.0,
    elo1: Annotated[float, typer.Option(help="Elo of H1.")] = 2.0,
    alpha: Annotated[float, typer.Option(help="Risk of accepting H1 wrongly.")] = 0.05,
    beta: Annotated[float, typer.Option(help="Risk of accepting H0 wrongly.")] = 0.05,
    players: Annotated[int, typer.Option(help="Players at the table: equals win 1/K (2 counts).")] = 2,
    score0: Annotated[float | None, typer.Option(help="Mean score of H0, in place of Elo (2 counts).")] = None,
    score1: Annotated[float | None, typer.Option(help="Mean score of H1, in place of Elo (2 counts).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The log-likelihood ratio, its bounds and state; Elo with its 95 % interval, LOS."""
    numbers = _counts(counts)
    try:
        limits = bounds(alpha, beta)
    except ValueError as error:
        raise BadInput(f"--alpha, --beta: {error}") from error
    ratio = _ratio(numbers, model, elo0, elo1, players, score0, score1)
    measured = measure(numbers, 1 / players if len(numbers) == 2 else 0.5)
    result = {
        "llr": ratio,
        "lower": limits.lower,
        "upper": limits.upper,
        "state": state_of(ratio, limits),
        "elo": measured.elo,
        "elo_low": measured.elo_low,
        "elo_high": measured.elo_high,
        "los": measured.los,
        "games": measured.games,
    }
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(f"LLR {ratio:.6f} in [{limits.lower:.4f}, {limits.upper:.4f}]: {result['state']}")
    typer.echo(f"Elo {measured.elo:+.2f} [{measured.elo_low:+.2f}, {measured.elo_high:+.2f}], LOS {measured.los:.4f}")
    typer.echo(f"{measured.games} games")


def _counts(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInput(f"--counts = {text!r}: give whole numbers, comma-separated, from worst to best") from error
    if len(numbers) not in (2, 3, 5) or min(numbers) < 0 or sum(numbers) == 0:
        raise BadInput(f"--counts = {text!r}: give 2, 3 or 5 counts, none negative, at least one game")
    return numbers


def _ratio(
    numbers: list[int], model: str, elo0: float, elo1: float, players: int, score0: float | None, score1: float | None
) -> float:
    if players < 2:
        raise BadInput(f"--players = {players}: two at least")
    if score0 is not None or score1 is not None:
        if score0 is None or score1 is None or not 0 < score0 < score1 < 1:
            raise BadInput(f"--score0 = {score0}, --score1 = {score1}: give both, 0 < score0 < score1 < 1")
        return llr_of_means(numbers, score0, score1)
    if players > 2:
        raise BadInput(f"--players = {players} needs --score0 and --score1, the two mean scores")
    if elo0 >= elo1:
        raise BadInput(f"--elo0 = {elo0} must be below --elo1 = {elo1}")
    if model not in ("normalized", "logistic"):
        raise BadInput(f"--model = {model!r}: normalized or logistic")
    chosen: Model = "normalized" if model == "normalized" else "logistic"
    return llr(numbers, elo0, elo1, chosen)
