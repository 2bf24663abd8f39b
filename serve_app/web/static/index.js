// Recent jobs, live: one listing, then the event feed. Texts of clients are only ever set as text.
// @ts-check

const SHOWN = 20;
const RECONNECT_MS = 2000;
const CAPABILITIES_MS = 10000;  // backends come, go and fall ill without an event

/** @type {Map<string, HTMLTableRowElement>} */
const rows = new Map();
let lastEventId = "";

/** @param {string} id @returns {HTMLElement} */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @param {string} path */
async function read(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function showCapabilities() {
  const { engines, backends } = await read("v1/capabilities");
  element("engines").replaceChildren(...engines.map(
    (/** @type {any} */ engine) => item(`${engine.name} (${engine.kind}): ${engine.description}`)));
  element("backends").replaceChildren(...backends.map(backendItem));
  if (!backends.length) element("backends").append(item("none is listed, so workflows may not run: COMFYUI_URL says where one is"));
}

/** @param {string} text */
function item(text) {
  const line = document.createElement("li");
  line.textContent = text;
  return line;
}

/** @param {any} backend */
function backendItem(backend) {
  const version = backend.version ? `, version ${backend.version}` : "";
  const state = backend.draining ? "draining" : backend.healthy ? "healthy" : "not healthy";
  const tags = backend.tags.length ? `, tags ${backend.tags.join(" ")}` : "";
  const line = item(`${backend.name}: ${state}${version}${tags}`);
  if (backend.fake) {
    const mark = document.createElement("span");
    mark.className = "fake";
    mark.textContent = "fake backend: no model, its pictures are stand-ins";
    line.append(" ", mark);
  }
  return line;
}

/** @param {any} job */
function showJob(job) {
  const row = rows.get(job.id) ?? newRow(job.id);
  const [created, kind, status, progress, result] = row.cells;
  created.textContent = new Date(job.created_at).toLocaleString();
  kind.textContent = job.spec.workflow?.name ? `${job.kind}: ${job.spec.workflow.name}` : job.kind;
  showStatus(status, job.status, job.error);
  showProgress(progress, job.status === "running" ? job.progress : null);
  result.replaceChildren(...job.outputs.map(linkToOutput));
}

/** @param {string} id */
function newRow(id) {
  const row = document.createElement("tr");
  for (let i = 0; i < 5; i += 1) row.insertCell();
  rows.set(id, row);
  return row;
}

/** @param {HTMLTableCellElement} cell @param {string} status @param {any} error */
function showStatus(cell, status, error) {
  cell.textContent = error ? `${status}: ${error.message}` : status;
  cell.className = status;
}

/** @param {HTMLTableCellElement} cell @param {any} progress */
function showProgress(cell, progress) {
  if (!progress) return cell.replaceChildren();
  const bar = document.createElement("progress");
  bar.value = progress.fraction;
  const [done, count] = progress.comfy_node_title ? [progress.step, progress.steps] : [progress.frame, progress.frames];
  const share = count ? ` ${done ?? 0} of ${count}` : "";
  return cell.replaceChildren(bar, document.createTextNode(` ${progress.comfy_node_title ?? progress.stage}${share}`));
}

/** @param {any} output */
function linkToOutput(output) {
  const link = document.createElement("a");
  link.href = output.url;
  link.textContent = output.name;
  return link;
}

async function showRecentJobs() {
  const { jobs } = await read(`v1/jobs?limit=${SHOWN}`);
  rows.clear();
  jobs.forEach(showJob);
  element("jobs").replaceChildren(...rows.values());
}

/** @param {any} event */
async function onEvent(event) {
  lastEventId = event.id;
  const row = rows.get(event.job_id);
  if (event.type === "progress" && row) return showProgress(row.cells[3], event.progress);
  if (!row) return showRecentJobs();
  return showJob(await read(`v1/jobs/${event.job_id}`));
}

function follow() {
  const url = new URL("v1/events", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  if (lastEventId) url.searchParams.set("after", lastEventId);
  const socket = new WebSocket(url);
  socket.onopen = () => { element("connection").textContent = "live"; };
  socket.onmessage = (message) => { onEvent(JSON.parse(message.data)).catch(console.error); };
  socket.onclose = () => {
    element("connection").textContent = "not connected, trying again";
    setTimeout(follow, RECONNECT_MS);
  };
}

follow();
showCapabilities().catch(console.error);
setInterval(() => { showCapabilities().catch(console.error); }, CAPABILITIES_MS);
showRecentJobs().catch(console.error);
