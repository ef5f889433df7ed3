"""Writes a run down in the case format (shared/cases), which the oracle reads: the input, the geography, the bindings, the outputs."""

import base64
import json
import pathlib
import shutil


def lines(path, rows):
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def input_line(partition, offset, login):
    place = {"partition": partition, "offset": offset}
    if login.line is not None:
        return place | login.line
    return place | {"raw": None if login.value is None else base64.b64encode(login.value).decode()}


def write_case(folder, inputs, geo, bindings):
    """`folder`/{login_events.ndjson, ip_geo.csv, bindings.ndjson}. Arrival order across partitions is in the bindings, not here."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    lines(folder / "login_events.ndjson",
          (input_line(p, offset, login) for p, logins in enumerate(inputs) for offset, login in enumerate(logins)))
    shutil.copyfile(geo, folder / "ip_geo.csv")
    lines(folder / "bindings.ndjson", bindings)


def write_outputs(folder, outputs, dlq):
    """`folder`/<topic>.ndjson for topics {name: [[Row]]}; the dead letters' `raw` is no part of the format."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    for topic, partitions in outputs.items():
        rows = [json.loads(row.value) for partition in partitions for row in partition]
        if topic == dlq:
            for row in rows:
                row.pop("raw", None)
        lines(folder / f"{topic}.ndjson", rows)
