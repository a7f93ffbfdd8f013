"""All that can be checked before anything is trained, with all problems reported at once. `validate=true` stops here.

runs/checks/ holds the checks; here are those of the config's own keys, and the messages for errors that Hydra raises.
"""

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mangakd.cli.mistakes import explained
from mangakd.cli.values import misspelt, warn_ignored, wrong_values
from mangakd.core.errors import UserError
from mangakd.runs.checks.every import every_check
from mangakd.runs.run import Run


def check(config: DictConfig, run: Run) -> None:
    """Raises one UserError that lists every problem found."""
    values = list(wrong_values(config))
    problems = [*values, *misspelt(config)]
    for step in every_check(run):
        try:
            step()
        except Exception as error:
            # A part that failed once fails again for the checks that need it.
            problems += [text for text in _problems(error, bool(values)) if text not in problems]
    warn_ignored(config)
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise UserError(
            f"{count} found before training:\n" + "\n".join(f"  {i}. {p}" for i, p in enumerate(problems, 1))
        )


def _problems(error: Exception, wrong_value: bool) -> list[str]:
    """The problems behind an exception that a user can fix; any other is raised again, being a bug.

    wrong_value: values were already found wrong, and what a part makes of them adds nothing.
    """
    message = user_message(error)
    if message is not None:
        return [text.removeprefix("- ") for text in message.split("\n- ")]
    if wrong_value:
        return []
    if isinstance(error, HydraException):  # a constructor that does not take what the config gives it
        lines = str(error).splitlines()
        key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "the config")
        return [f"{key}: {error.__cause__ or lines[0]}. Mend the keys under {key}; --help lists them."]
    if isinstance(error, OmegaConfBaseException):
        return [explained(error, "train").splitlines()[0]]
    raise error


def user_message(error: BaseException | None) -> str | None:
    """The UserError behind an exception; Hydra wraps what constructors raise."""
    while error is not None:
        if isinstance(error, UserError):
            return str(error)
        error = error.__cause__
    return None
