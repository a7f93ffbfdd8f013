"""The costs at the end of a plan: reads traffic_per_day and `costs` of conf/plan.yaml, and the teacher's price in conf/prices."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mangakd.core.errors import UserError
from mangakd.labelling.api.prices import Price
from mangakd.planning import costs
from mangakd.planning.job import Machine
from mangakd.planning.plan import Estimate

Figures = Callable[[str], Any]
NUMBERS = ("tokens_in", "tokens_out", "peak", "utilisation", "replicas")


def writer(config: DictConfig, figures: Figures) -> Callable[[Estimate], list[str]]:
    """What writes the costs of a plan; nothing without traffic_per_day. figures: hardware profile → its `machine:` block.

    Numbers and prices are checked here, because a plan of a run reads its models and data first, which may take a minute.
    Raises UserError for a number that is none, and for a teacher without a price.
    """
    if config.get("traffic_per_day") is None:
        return lambda plan: []
    for key, first in (("costs", "teacher"), ("costs.price", "input")):
        if not isinstance(value := OmegaConf.select(config, key), DictConfig):
            raise UserError(
                f"{key}={value} must hold keys: leave it out and set those that differ, such as {key}.{first}."
            )
    options: Any = OmegaConf.to_container(config.costs, resolve=True)
    per_day = _number("traffic_per_day", config.traffic_per_day)
    numbers = {name: _number(f"costs.{name}", options[name]) for name in NUMBERS}
    if numbers["utilisation"] > 1:
        raise UserError(f"costs.utilisation={numbers['utilisation']:g} is a share: give a number up to 1.")
    if numbers["replicas"] % 1:
        raise UserError(
            f"costs.replicas={numbers['replicas']:g} is a number of machines: give a whole number from 1 on."
        )
    traffic = costs.Traffic(per_day, numbers["tokens_in"], numbers["tokens_out"], numbers["peak"])
    price, replica = _price(config, options), _replica(config, options, traffic, figures)
    return lambda plan: ["", costs.table(costs.costs(plan, traffic, price, replica(plan)))]


def _replica(
    config: DictConfig, options: Any, traffic: costs.Traffic, figures: Figures
) -> Callable[[Estimate], costs.Replica]:
    name, rate, measured = options["hardware"], options["usd_per_hour"], options["requests_per_second"]
    machine = Machine.of(name, figures(name) or {}) if measured is None or rate is None else None
    own_speed = None if measured is None else _number("costs.requests_per_second", measured)
    hourly = machine.hourly if rate is None and machine is not None else _number("costs.usd_per_hour", rate)
    if hourly == 0:
        raise UserError(
            f"costs.hardware={name} has no price, so the student's machines have none: set costs.usd_per_hour."
        )

    def replica(plan: Estimate) -> costs.Replica:
        if own_speed is None:
            assert machine is not None
            speed = costs.speed(plan.student, machine, traffic, writes=config.task.kind == "tokens")
            origin = f"estimated from the student's sizes and costs.hardware={name}; measure it and set costs.requests_per_second"
        else:
            speed, origin = (own_speed, own_speed), "costs.requests_per_second"
        return costs.Replica(name, hourly, speed, origin, float(options["utilisation"]), int(options["replicas"]))

    return replica


def _price(config: DictConfig, options: Any) -> costs.TokenPrice:
    own = {key: value for key, value in options["price"].items() if value is not None}
    if own:
        price_in, price_out = (_number(f"costs.price.{key}", own.get(key), zero=True) for key in ("input", "output"))
        return costs.TokenPrice(price_in, price_out, "set by costs.price")
    table = OmegaConf.to_container(config.prices.models)
    price = Price.of(str(options["teacher"]), table, {})  # type: ignore[arg-type]
    if price is None or price.currency != "USD":
        names = ", ".join(str(entry["model"]) for entry in table)  # type: ignore[union-attr,call-overload,index]
        teacher = options["teacher"]
        lacks = "costs.teacher is not set" if teacher is None else f"costs.teacher={teacher} has none in conf/prices"
        raise UserError(
            f"traffic_per_day needs the teacher's price: {lacks}. Set it to one of conf/prices ({names}), or set "
            "costs.price.input and costs.price.output, USD of a million tokens."
        )
    return costs.TokenPrice(price.input, price.output, f"{options['teacher']}: {price.source}, {price.date}")


def _number(key: str, value: Any, zero: bool = False) -> float:
    good = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (0 if zero else 1e-12) <= value < float("inf")
    )
    if not good:
        raise UserError(f"{key}={value} must be a number {'from' if zero else 'above'} 0.")
    return float(value)
