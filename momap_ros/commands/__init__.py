"""The commands of `momap`, one module each; `--help` imports none of the heavy libraries."""
