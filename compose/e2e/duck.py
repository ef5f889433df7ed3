"""DuckDB with extensions that come as packages."""

import importlib
import pathlib

import duckdb


def open_duckdb(*extensions):
    """A connection that has them loaded: DuckDB itself would download them."""
    duck = duckdb.connect()
    for name in extensions:
        package = importlib.import_module(f"duckdb_extension_{name}")
        duck.execute(f"LOAD '{next(pathlib.Path(package.__path__[0]).rglob(f'{name}.duckdb_extension'))}'")
    duck.execute("SET TimeZone = 'UTC'")
    return duck
