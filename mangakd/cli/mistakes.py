"""Messages for the errors that Hydra and OmegaConf raise while they compose a config.

Instead of Hydra's words, which advise to append a misspelt key and list search paths.
"""

import contextlib
import re
import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from mangakd.cli.grammar import ambiguous
from mangakd.cli.searchpath import CONF, groups, unknown_option
from mangakd.core.errors import near
from mangakd.core.invocation import command

MOST_NAMED = 12  # keys beside a misspelt one


def explained(error: Exception, name: str) -> str:
    """name: of the command's config, whose keys a misspelt key is compared with."""
    message = str(error).strip()
    if match := re.search(r"Interpolation key '(.+)' not found", message):
        words = [word for word in sys.argv[1:] if "${" in word and match[1] in word]
        return f"{', '.join(words) or 'the config'}: there is no key {match[1]}{_near_key(match[1], name)}"
    if match := re.search(r"Environment variable '(.+)' not found", message):
        words = [word for word in sys.argv[1:] if f"oc.env:{match[1]}" in word]
        return (
            f"{', '.join(words) or 'the config'}: the environment has no variable {match[1]}. Set it, or give a value for "
            f"where it is missing: ${{oc.env:{match[1]},<value>}}."
        )
    if match := re.search(r"Could not (?:find|load) '([\w/.-]+)'", message):
        return unknown_option(match[1], message) or message
    if match := re.search(r"Ambiguous value for argument '(.+)'\n", message):
        return ambiguous(match[1])
    if match := re.search(r"already at '(.+)'\.\nEither remove \+ prefix: '(.+)'\n", message):
        return f"{match[1]} is a key already, so it takes no +: {match[2]}"
    if match := re.search(r"Cannot find primary config '(.+)'\.", message):
        return f"--config-name={match[1]} is unknown{near(match[1], sorted(file.stem for file in CONF.glob('*.yaml')))}"
    if match := re.search(r"Could not delete from config\. '(.+)' does not exist", message):
        group, slash, _ = match[1].rpartition("/")
        if slash:
            return f"~{match[1]} removes nothing. An option is left out by naming the others: '{group}=[…]'."
        return f"~{match[1]} removes nothing{_near_key(match[1], name)}"
    if match := re.search(r"Could not delete from config\. The value of '(.+)' is (.+) and not (.+)\.", message):
        return (
            f"~{match[1]}={match[3]} removes nothing: {match[1]} is {match[2]}. ~{match[1]} removes it whatever it is."
        )
    if match := re.search(r"Could not override '([\w/.@-]+)'", message):
        inside = re.search(r"full_key: (\S+)", str(error.__cause__))  # such as data.columns.x of data.columns={x: y}
        return _not_overridden(inside[1] if inside else match[1], name)
    return message


def _not_overridden(key: str, name: str) -> str:
    if re.fullmatch(r"stages\.[\w-]+\.\w+", key):
        return (
            f"{key} is not in the recipe: it leaves this entry out, or has no such stage (--cfg job shows its stages). "
            f"+{key}=… adds the entry; docs/how-to/recipes.md lists them."
        )
    return f"{key} is no key or group{_near_key(key, name)}"


def _near_key(key: str, name: str) -> str:
    """Compares with every key of this command's config and the largest, by default and with the options that were typed."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    option = re.compile(rf"(?:hydra\.searchpath|{'|'.join(groups())})=.+")
    options = [word for word in sys.argv[1:] if option.fullmatch(word)]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [compose(each, return_hydra_config=True) for each in (name, "plan")]
        with contextlib.suppress(HydraException):
            configs.append(compose(name, options))
    keys = list(dict.fromkeys([*(key for config in configs for key in keys_of(config)), *groups()]))
    if key in keys:  # of another command's config
        return f". {command('plan')} has it."
    # `lr` is too far from `optim.lr` for difflib, yet it is what people type.
    within = [one for one in keys if one.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"; did you mean {', '.join(within[:3])}?" if within else near(key, keys)
    place = key.rpartition(".")[0]
    beside = [one.rpartition(".")[2] for one in keys if one.rpartition(".")[0] == place != ""]
    if 0 < len(beside) <= MOST_NAMED:
        hint += f" {place} has: {', '.join(beside)}."
    return f"{hint} {command(name)} --help lists them."


def keys_of(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, config):
        keys.append(f"{prefix}{name}")
        value = config._get_node(name)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            keys += keys_of(value, f"{prefix}{name}.")
    return keys
