// Make a picture from a description in Node 18 or newer, without packages:
//
//     node examples/node_client.mjs "a lighthouse at dusk" pictures
//
// The service is the one that TASK_API_URL names, else the one on this machine. Where Node has a WebSocket (22 and newer) it listens,
// else it polls.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

const server = process.env.TASK_API_URL ?? "http://127.0.0.1:8000";
const ended = new Set(["COMPLETED", "FAILED", "CANCELLED"]);

async function ask(path, body) {
  const response = await fetch(server + path, {
    method: body ? "POST" : "GET",
    headers: { "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${answer.detail}`);
  return answer;
}

async function poll(taskId) {
  for (;;) {
    const task = await ask(`/api/task/${taskId}`);
    console.error(task.status, `${task.progress} %`);
    if (ended.has(task.status)) return task;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function listen(taskId) {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${server.replace("http", "ws")}/ws`);
    const finish = (task) => {
      socket.close();
      resolve(task);
    };
    // It may have ended before we listened, and a connection may break: then the task itself says how it is.
    socket.onopen = () => ask(`/api/task/${taskId}`).then((task) => ended.has(task.status) && finish(task));
    socket.onerror = () => poll(taskId).then(resolve);
    socket.onmessage = (event) => {
      const data = JSON.parse(event.data);
      if (data.type !== "task_update" || data.task_id !== taskId) return;
      console.error(data.status, `${data.progress} %`);
      if (ended.has(data.status)) finish(data);
    };
  });
}

const [prompt = "a lighthouse at dusk", folder = "."] = process.argv.slice(2);
const { task_id: taskId } = await ask("/api/tasks/create", { workflow: "text-to-image", inputs: { prompt, width: 512, height: 512, seed: -1 } });
const task = await (typeof WebSocket === "undefined" ? poll(taskId) : listen(taskId));
if (task.status !== "COMPLETED") throw new Error(`${task.status}: ${task.error}`);
await mkdir(folder, { recursive: true });
for (const output of task.outputs) {
  const path = join(folder, output.filename);
  await writeFile(path, Buffer.from(await (await fetch(output.url)).arrayBuffer()));
  console.log(path);
}
