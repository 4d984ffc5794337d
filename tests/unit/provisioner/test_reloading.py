from __future__ import annotations

import pytest

from provisioner.reloading import Tokens, live_part, reread
from secbeat.auth import TokenBook
from secbeat.settings import BlueprintSettings, ProvisionerSettings, Settings, load


def test_live_keys_change_and_others_wait_for_a_restart():
    old = Settings()
    new = Settings(
        provisioner=ProvisionerSettings(max_machines=7, listen_addr="127.0.0.1:9"),
        blueprints={"default": BlueprintSettings(max_machines=3, create_playbook="other")},
    )
    now = live_part(old, new)
    assert (now.provisioner.max_machines, now.provisioner.listen_addr) == (7, old.provisioner.listen_addr)
    assert (now.blueprints["default"].max_machines, now.blueprints["default"].create_playbook) == (3, "scale_up")


def test_a_blueprint_that_left_the_file_stays_until_the_restart():
    old = Settings(blueprints={"one": BlueprintSettings(), "two": BlueprintSettings()})
    assert sorted(live_part(old, Settings(blueprints={"one": BlueprintSettings()})).blueprints) == ["one", "two"]


def test_a_broken_file_changes_nothing(tmp_path, caplog):
    file = tmp_path / "secbeat.toml"
    file.write_text("[provisioner]\nmax_machines = 5\n")
    loaded = load(file, environ={})
    file.write_text("[provisioner]\nmax_machines = -5\n")
    assert reread(loaded, loaded.settings) is None
    assert "not reloaded" in caplog.text
    file.write_text("[provisioner]\nmax_machines = 9\nlisten_addr = '127.0.0.1:1'\n")
    assert reread(loaded, loaded.settings).provisioner.max_machines == 9
    assert "next start: provisioner.listen_addr" in caplog.text


def test_tokens_are_read_again_and_a_broken_file_keeps_the_old_ones(tmp_path):
    path = tmp_path / "tokens.json"
    tokens = Tokens(path)
    token = TokenBook.issue(path, name="x", scope="operate")
    assert tokens.check(token) is None
    tokens.reload()
    assert tokens.check(token).scope == "operate"
    path.write_text("{")
    tokens.reload()
    assert tokens.check(token).scope == "operate"


@pytest.mark.parametrize("resized", [1, 20])
async def test_the_worker_takes_over_new_limits(world, resized):
    world.worker.resize(resized, {"default": resized})
    world.engine.gate.clear()
    world.start()
    for _ in range(8):
        await world.send()
    await world.until(lambda: world.engine.running == min(8, resized))
    await world.clock.advance(20)
    assert world.engine.most_running == min(8, resized)
    world.engine.gate.set()
