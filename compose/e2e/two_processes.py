"""Two processes on copies of one data folder, as after a machine that came back or a folder that was copied by mistake: exactly one
goes on, the other is fenced and says so, and the output stays exact."""

import shutil

import product
from scene import Failure, say, until

# Fencing shows at the next commit at the latest.
FENCE_SECONDS = 120


def play(scene, options):
    first = scene.product("data")
    scene.feeder.start()
    first.start()
    scene.progress(first)
    until(FENCE_SECONDS, "a manifest is written", lambda: scene.running(first) and first.manifests())
    scene.end_life(first)
    shutil.copytree(first.data, scene.folder / "copy", symlinks=True)
    second = scene.product("copy")
    say("starting a process on the folder and one on its copy")
    first.start()
    second.start()
    until(FENCE_SECONDS, "one of the two has ended", lambda: first.exit_code() is not None or second.exit_code() is not None)
    fenced, survivor = (first, second) if first.exit_code() is not None else (second, first)
    if fenced.exit_code() != product.EXIT_FENCED:
        raise Failure(f"the loser ended with {fenced.exit_code()}, not with {product.EXIT_FENCED}; {fenced.last_lines()}")
    fenced.kill()
    say(f"'{fenced.data.name}' was fenced, '{survivor.data.name}' goes on")
    scene.progress(survivor)
    until(3600, "all promised input is in", lambda: scene.running(survivor) and scene.feeder.count >= options.events)
    scene.verdict(*scene.settle(survivor))
