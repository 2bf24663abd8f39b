"""The walk of the Postman collection, run by newman against the live graph."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.serve

COLLECTION = Path(__file__).parents[2] / "ComfyUI_API.postman_collection.json"
PACKAGES = Path(__file__).parent / "newman"


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed, which brings newman")
def test_the_walk_passes(cluster, tmp_path):
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGES / name, tmp_path)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=tmp_path, check=True, timeout=100)
    report = tmp_path / "report.json"
    command = [
        "node_modules/.bin/newman", "run", COLLECTION, "--folder", "流程 (walk)", "--env-var", f"base_url={cluster.url}",
        "--delay-request", "300", "--reporters", "cli,json", "--reporter-json-export", report,
    ]  # fmt: skip
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    run = json.loads(report.read_text())["run"]
    assert run["failures"] == []
    assert run["stats"]["assertions"]["total"] >= 12
    assert {execution["item"]["name"] for execution in run["executions"]} == {
        "1. 健康检查", "2. 获取工作流列表", "3. 提交工作流", "4. 查询任务状态", "5. 获取图片", "6. 获取执行历史", "7. 提交文生图场景", "8. 获取场景历史",
    }  # fmt: skip
