"""The config: its typed root, its check against the signatures it names, and what the command line answers."""

from genrec.config.building import instantiate
from genrec.config.recorded import recorded_config
from genrec.config.root import RootConfig, check, check_or_raise, compose_config, conf_dir, preflight, register_schema

__all__ = [
    "RootConfig",
    "check",
    "check_or_raise",
    "compose_config",
    "conf_dir",
    "instantiate",
    "preflight",
    "recorded_config",
    "register_schema",
]
