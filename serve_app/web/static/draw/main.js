// The drawing page: every stroke goes out, and what comes back is always the newest.

import { Sketch } from "./canvas.js";
import { Link } from "./link.js";
import { chooseLanguage, text } from "./texts.js";

const MIN_GAP_MS = 66; // 15 sketches a second while the pen moves: more than any sampler shows
const SWATCHES = ["#16181d", "#ffffff", "#c3352b", "#e59a2f", "#f4d35e", "#3f8f4f", "#2f6fb4", "#7a4fa3", "#8a5a3c"];
const KEPT = "atelier-draw";
const PATIENCE_MS = 4000;
const LARGEST_SEED = 2 ** 32 - 1;

const $ = (id) => document.getElementById(id);
const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
const sentAt = new Map();
let styles = [];
let seq = 0;
let shownSeq = 0;
let dirty = false; // something was drawn or set that has not been sent
let forced = false;
let sending = false;
let lastSent = 0;
let heardAt = 0;
let said = ["connecting", {}];

const sketch = new Sketch($("sketch"), (isStrokeEnd) => {
  if (isStrokeEnd && !$("lock").checked) drawSeed();
  showTools();
  changed();
});
const link = new Link({
  opened(newest) {
    seq = Math.max(seq, newest);
    say("connected");
    if (!sketch.isEmpty) changed(); // what was drawn meanwhile
  },
  closed: () => say("reconnecting", {}, true),
  expired() {
    seq = shownSeq = 0;
    sentAt.clear();
    say("expired");
  },
  message: (header, blob) => take(header, blob),
});

function say(key, values = {}, isTrouble = false) {
  said = [key, values, isTrouble];
  $("status").textContent = key === "error" ? values.message : text(key, values);
  $("status").classList.toggle("trouble", isTrouble);
}

// Out.

function changed() {
  dirty = true;
  pump();
}

async function pump() {
  if (sending || !dirty || !link.isFree || !currentStyle()) return;
  const wait = lastSent + MIN_GAP_MS - performance.now();
  sending = true;
  try {
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    dirty = false;
    const force = forced;
    forced = false;
    const blob = await sketch.toBlob();
    if (!link.isFree) {
      dirty = true;
      return;
    }
    seq += 1;
    lastSent = performance.now();
    sentAt.set(seq, lastSent);
    await link.send({ seq, style: currentStyle().name, settings: settings(), force }, blob);
  } finally {
    sending = false;
    if (dirty) setTimeout(pump, link.isFree ? 0 : MIN_GAP_MS);
  }
}

function settings() {
  const takes = currentStyle().parameters;
  const found = {};
  const prompt = $("prompt").value.trim();
  if (takes.prompt && prompt) found.prompt = prompt;
  if (takes.strength) found.strength = Number($("strength").value);
  if (takes.seed) found.seed = Math.min(Math.max(0, Math.trunc(Number($("seed").value) || 0)), LARGEST_SEED);
  return found;
}

// In.

async function take(header, blob) {
  heardAt = performance.now();
  switch (header.status) {
    case "processing":
      $("progress").value = header.progress;
      say("drawing");
      break;
    case "preview":
      await show(header, blob, false);
      break;
    case "completed":
      await show(header, blob, true);
      break;
    case "skipped":
      sentAt.delete(header.seq);
      if (header.reason === "older") {
        seq = Math.max(seq, header.newest_seq); // another window draws in this session
        changed();
      } else if (header.newest_seq <= shownSeq) {
        say("done");
      }
      break;
    case "error":
      if (header.code === "sessions_full") say("waiting", { place: header.place }, true);
      else if (header.code !== "session_expired") say("error", { message: header.message }, true);
      $("progress").value = 0;
  }
}

async function show(header, blob, isDone) {
  try {
    if (header.seq < shownSeq) return; // never an older one after a newer one
    // The last picture of a session that goes on comes before this page could ask for frames.
    blob ??= await (await fetch(`api/result/${link.session}?seq=${header.seq}`)).blob();
    const bitmap = await createImageBitmap(blob);
    const canvas = $("result");
    if (isDone && (canvas.width !== bitmap.width || canvas.height !== bitmap.height)) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    canvas.dataset.seq = header.seq;
    canvas.dataset.done = isDone;
    if (isDone) completed(header);
  } finally {
    link.acknowledge();
  }
}

function completed(header) {
  shownSeq = header.seq;
  $("progress").value = 1;
  $("download").disabled = false;
  const waited = sentAt.get(header.seq);
  if (waited !== undefined) $("latency").textContent = text("ms", { ms: Math.round(performance.now() - waited) });
  for (const number of sentAt.keys()) if (number <= header.seq) sentAt.delete(number);
  say(sentAt.size || dirty ? "drawing" : "done");
}

// Nothing is heard for a while: whoever draws should know that it is not them.
setInterval(() => {
  const oldest = sentAt.values().next().value;
  if (link.ready && oldest !== undefined && performance.now() - Math.max(oldest, heardAt) > PATIENCE_MS) say("slow", {}, true);
}, 1000);

// The controls.

function currentStyle() {
  return styles.find((style) => style.name === $("style-selector").value);
}

function showStyle() {
  const style = currentStyle();
  const takes = style?.parameters ?? {};
  const strength = takes.strength;
  $("style-description").textContent = style?.description ?? "";
  $("prompt").placeholder = takes.prompt?.default ?? "";
  $("prompt").disabled = !takes.prompt;
  $("seed").disabled = $("lock").disabled = $("again").disabled = !takes.seed;
  $("strength").disabled = !strength;
  if (strength) {
    Object.assign($("strength"), { min: strength.minimum ?? 0, max: strength.maximum ?? 1, step: strength.step ?? 0.01 });
    $("strength").value = kept.strengths?.[style.name] ?? strength.default;
  }
  $("strength-value").textContent = strength ? $("strength").value : "";
}

function showTools() {
  $("brush").setAttribute("aria-checked", String(!sketch.erases));
  $("eraser").setAttribute("aria-checked", String(sketch.erases));
  $("undo").disabled = sketch.done.length === 0;
  $("redo").disabled = sketch.undone.length === 0;
  $("remove-beneath").hidden = sketch.beneath === null;
}

function keep(changes) {
  Object.assign(kept, changes);
  localStorage.setItem(KEPT, JSON.stringify(kept));
}

function useTool(erases) {
  sketch.erases = erases;
  showTools();
}

function useColour(colour) {
  $("colour").value = sketch.colour = colour;
  useTool(false);
}

function useSize(size) {
  $("size").value = size;
  sketch.size = Number($("size").value);
}

function drawSeed() {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

function another() {
  if ($("again").disabled || sketch.isEmpty) return;
  drawSeed();
  forced = true;
  changed();
}

function layOut() {
  const over = $("overlay").checked;
  $("boards").className = `boards ${over ? "over" : "side"}`;
  $("boards").style.setProperty("--see-through", over ? $("opacity").value / 100 : 1);
  $("opacity-label").hidden = !over;
  sketch.showPaper(!over);
  keep({ over });
}

function download() {
  $("result").toBlob((blob) => {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(blob);
    anchor.download = `atelier-${$("result").dataset.seq}.png`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
  });
}

async function putBeneath(file) {
  if (!file) return;
  try {
    sketch.putBeneath(await createImageBitmap(file));
  } catch {
    say("error", { message: text("noPicture") }, true);
  }
  showTools();
}

function pickStyle(name) {
  $("style-selector").value = name;
  keep({ style: name });
  showStyle();
  if (!sketch.isEmpty) changed();
}

async function loadStyles() {
  try {
    const answer = await fetch("api/styles");
    const list = await answer.json();
    if (!answer.ok) throw new Error(list.detail ?? answer.status);
    styles = list.details;
  } catch (error) {
    say("error", { message: text("noService", { reason: error.message }) }, true);
    setTimeout(loadStyles, 3000);
    return;
  }
  $("style-selector").replaceChildren(...styles.map((style) => new Option(style.title, style.name)));
  if (!styles.length) say("error", { message: text("noStyles") }, true);
  const wanted = [kept.style, "realistic"].find((name) => styles.some((style) => style.name === name));
  if (wanted) $("style-selector").value = wanted;
  showStyle();
  pump();
}

const KEYS = {
  b: () => useTool(false), e: () => useTool(true), "[": () => useSize(sketch.size - 2), "]": () => useSize(sketch.size + 2),
  delete: () => sketch.clear(), r: another, s: () => $("download").disabled || download(),
  o: () => { $("overlay").checked = !$("overlay").checked; layOut(); },
};

addEventListener("keydown", (event) => {
  if (event.target.matches("textarea, input[type=number], select")) return;
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
    if (key === "y" || event.shiftKey) sketch.redo();
    else sketch.undo();
  } else if (!event.ctrlKey && !event.metaKey && !event.altKey && (key in KEYS || styles[Number(key) - 1])) {
    if (key in KEYS) KEYS[key]();
    else pickStyle(styles[Number(key) - 1].name);
  } else {
    return;
  }
  event.preventDefault();
});
$("brush").onclick = () => useTool(false);
$("eraser").onclick = () => useTool(true);
$("size").oninput = () => useSize($("size").value);
$("colour").oninput = () => useColour($("colour").value);
$("undo").onclick = () => sketch.undo();
$("redo").onclick = () => sketch.redo();
$("clear").onclick = () => sketch.clear();
$("beneath").onchange = () => putBeneath($("beneath").files[0]);
$("remove-beneath").onclick = () => { $("beneath").value = ""; sketch.putBeneath(null); };
$("style-selector").onchange = () => pickStyle($("style-selector").value);
$("prompt").oninput = () => { keep({ prompt: $("prompt").value }); if (!sketch.isEmpty) changed(); };
$("strength").oninput = () => {
  $("strength-value").textContent = $("strength").value;
  keep({ strengths: { ...kept.strengths, [currentStyle().name]: Number($("strength").value) } });
  if (!sketch.isEmpty) changed();
};
$("seed").onchange = () => sketch.isEmpty || changed();
$("again").onclick = another;
$("overlay").onchange = layOut;
$("opacity").oninput = layOut;
$("download").onclick = download;
$("settings").onsubmit = (event) => event.preventDefault();
$("language").onchange = () => {
  keep({ language: chooseLanguage($("language").value) });
  say(...said);
};

for (const colour of SWATCHES) {
  const swatch = document.createElement("button");
  swatch.className = "swatch";
  swatch.style.backgroundColor = colour;
  swatch.setAttribute("aria-label", colour);
  swatch.onclick = () => useColour(colour);
  $("swatches").append(swatch);
}
$("language").value = chooseLanguage(kept.language ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
$("prompt").value = kept.prompt ?? "";
$("overlay").checked = kept.over ?? false;
useSize(5);
useColour(SWATCHES[0]);
layOut();
say(...said);
loadStyles();
