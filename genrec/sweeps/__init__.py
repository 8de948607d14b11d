"""Several runs from one command: searches, seeds, and what they found."""

from __future__ import annotations


def register_sweepers() -> None:
    """Makes ``hydra.sweeper._target_: genrec.sweeps.optuna_sweeper.OptunaSweeper`` known to Hydra; loads no Optuna.

    Hydra takes its plugins from one package that it scans at every start. Naming ours is quicker, and the config then
    says where the code is.
    """
    from hydra.core.plugins import Plugins

    from genrec.sweeps.optuna_sweeper import OptunaSweeper

    plugins = Plugins.instance()
    plugins.register(OptunaSweeper)
    plugins.is_in_toplevel_plugins_module = _may_be_a_plugin


def _may_be_a_plugin(clazz: str) -> bool:
    """Hydra's own answer, and yes to what was registered."""
    from hydra.core.plugins import Plugins

    return Plugins.is_in_toplevel_plugins_module(clazz) or clazz in Plugins.instance().class_name_to_class
