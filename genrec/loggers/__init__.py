"""Loggers of Lightning that also keep what a run leaves behind; one module per option of ``conf/logger``."""
