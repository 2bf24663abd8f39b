// Recent jobs, live: one listing, then the event feed. Texts of clients are only ever set as text.
// @ts-check

const SHOWN = 20;
const RECONNECT_MS = 2000;

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

async function showEngines() {
  const { engines } = await read("v1/capabilities");
  element("engines").replaceChildren(...engines.map((/** @type {any} */ engine) => {
    const item = document.createElement("li");
    item.textContent = `${engine.name} (${engine.kind}): ${engine.description}`;
    return item;
  }));
}

/** @param {any} job */
function showJob(job) {
  const row = rows.get(job.id) ?? newRow(job.id);
  const [created, kind, status, progress, result] = row.cells;
  created.textContent = new Date(job.created_at).toLocaleString();
  kind.textContent = job.kind;
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
  const frames = progress.frames ? ` ${progress.frame ?? 0} of ${progress.frames}` : "";
  return cell.replaceChildren(bar, document.createTextNode(` ${progress.stage}${frames}`));
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
showEngines().catch(console.error);
showRecentJobs().catch(console.error);
