"use strict";
// The page of the explorer.

const $ = (id) => document.getElementById(id);
const PAGE = 24, STEPS = 9, FEW = 12, KEPT = 200, STRIP_DELAY = 120;
const run = { info: null, units: [], attributes: [], map: null };
const view = { z: null, origin: null, amounts: {}, row: null, condition: {}, datum: null, caption: "" };
const past = [], future = [];
let committed = null, unit = null, from = null, page = 0, showAll = false, decodedNow = null;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function say(text, kind = "") { $("message").textContent = text; $("message").className = kind; }

// -- the service ------------------------------------------------------------------------------

async function fetched(path, options = {}) {
  const response = await fetch("api/" + path, options);
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  throw new Error(problem.detail);
}

const post = (path, body, accept = "application/json") => fetched(path, {
  method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", accept } });

function unpacked(buffer) {
  const header = new DataView(buffer), code = header.getUint8(4), dimensions = header.getUint8(5);
  const shape = Array.from({ length: dimensions }, (_, i) => header.getUint32(8 + 4 * i, true));
  const start = 8 + 4 * dimensions;
  return { shape, values: code === 2 ? new Uint8Array(buffer, start) : new Float32Array(buffer, start) };
}

// Data as a list: of {pixels, shape}, of {columns, cells}, of {text}, or of {values}.
function listed(content) {
  if (content.kind === "table") return content.rows.map((cells) => ({ columns: content.columns, cells }));
  if (content.kind === "text") return content.texts.map((text) => ({ text }));
  if (content.kind === "image") return content.values.map((pixels) => ({ pixels: Uint8Array.from(pixels.flat(2)), shape: run.info.picture }));
  return content.values.map((values) => ({ values }));
}

function pictures({ shape, values }) {
  const size = shape[1] * shape[2] * shape[3];
  return Array.from({ length: shape[0] }, (_, i) => ({ pixels: values.subarray(i * size, (i + 1) * size), shape: shape.slice(1) }));
}

const isImage = () => run.info.kind === "image";

const api = {
  start: async () => {
    run.info = await (await fetched("info")).json();
    [run.units, run.attributes, run.map] = await Promise.all(
      ["units", "attributes", "map"].map(async (path) => (await fetched(path)).json()));
  },
  data: async (start, count) => {
    const answer = await (await fetched(`data?start=${start}&count=${count}&pictures=${isImage()}`)).json();
    return { data: listed(answer.data), labels: answer.attributes };
  },
  code: async (row) => api.coded(await post("encode", { rows: [row] })),
  text: async (text) => api.coded(await post("encode", { data: [text], condition: view.condition })),
  file: async (file) => api.coded(await fetched(
    `encode-file?name=${encodeURIComponent(file.name)}&condition=${encodeURIComponent(JSON.stringify(view.condition))}`,
    { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } })),
  coded: async (response) => {
    const answer = await response.json();
    return { z: answer.z[0], datum: listed(answer.data)[0], condition: answer.conditions[0] || {}, labels: answer.attributes[0] };
  },
  decode: async (zs) => api.read(isImage(), "decode", { z: zs.map((z) => Array.from(z)) }),
  read: async (raw, path, body) => {
    const request = { ...body, condition: view.condition, pictures: raw };
    if (raw) return pictures(unpacked(await (await post(path, request, "application/octet-stream")).arrayBuffer()));
    return listed((await (await post(path, request)).json()).data);
  },
  sample: async (n, temperature, seed) => {
    const answer = await (await post("sample", { n, temperature, seed, condition: view.condition, pictures: isImage() })).json();
    return { z: answer.z, data: listed(answer.data) };
  },
  path: async (a, b, steps, spherical) => {
    const body = { a, b, steps, path: spherical ? "spherical" : "linear", condition: view.condition, pictures: isImage() };
    const answer = await (await post("interpolate", body)).json();
    return { z: answer.z, data: listed(answer.data) };
  },
  npz: async () => (await post("decode", { z: [Array.from(view.z)], condition: view.condition }, "application/x-npz")).blob(),
};

// -- drawing data -----------------------------------------------------------------------------

function canvasOf(datum) {
  const [height, width, channels] = datum.shape;
  const canvas = element("canvas", { width, height });
  if (Math.max(width, height) <= 96) canvas.classList.add("hard");
  paint(canvas, datum.pixels, channels);
  return canvas;
}

function paint(canvas, pixels, channels) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0, j = 0; i < image.data.length; i += 4, j += channels) {
    image.data[i] = pixels[j];
    image.data[i + 1] = channels > 2 ? pixels[j + 1] : pixels[j];
    image.data[i + 2] = channels > 2 ? pixels[j + 2] : pixels[j];
    image.data[i + 3] = channels === 4 ? pixels[j + 3] : 255;
  }
  context.putImageData(image, 0, 0);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

// Lines of a series (one per channel) or of a vector; `reference` is drawn pale behind them.
function plot(canvas, values, reference) {
  canvas.width = 720; canvas.height = 360;
  const context = canvas.getContext("2d");
  const columns = (rows) => rows && (Array.isArray(rows[0]) ? rows[0].map((_, c) => rows.map((row) => [row[c]].flat(9)[0])) : [rows]);
  const now = columns(values), before = columns(reference) || [];
  const all = [...now, ...before].flat().filter((v) => v !== null);
  const low = Math.min(...all), high = Math.max(...all);
  const draw = (line, style, width) => {
    context.strokeStyle = style; context.lineWidth = width; context.beginPath();
    let open = false;
    line.forEach((value, i) => {
      if (value === null) { open = false; return; }
      const x = 12 + 696 * i / Math.max(1, line.length - 1), y = 348 - 336 * (value - low) / (high - low || 1);
      if (open) context.lineTo(x, y); else context.moveTo(x, y);
      open = true;
    });
    context.stroke();
  };
  before.slice(0, 8).forEach((line) => draw(line, colour("faint"), 2));
  now.slice(0, 8).forEach((line, c) => draw(line, colour("c" + (c % 8 + 1)), 3));
}

const shown = (value) => value === null ? "missing" : typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value);

function tableOf(datum, reference) {
  const head = element("tr", {}, element("th", { textContent: "column", scope: "col" }), element("th", { textContent: "value", scope: "col" }));
  const rows = datum.columns.map((name, i) => {
    const before = reference && reference.columns ? reference.cells[reference.columns.indexOf(name)] : undefined;
    const changed = before !== undefined && shown(before) !== shown(datum.cells[i]);
    const cell = element("td", {}, changed ? element("mark", { textContent: shown(datum.cells[i]), title: "was " + shown(before) }) : shown(datum.cells[i]));
    return element("tr", {}, element("th", { textContent: name, scope: "row" }), cell);
  });
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

// Tokens that are not part of the longest common subsequence are marked.
function textOf(text, reference) {
  const node = element("div", { className: "text" });
  const cut = (s) => s.split(/(\s+)/).length > 3 ? s.split(/(\s+)/) : [...s];
  const now = cut(text), before = reference === undefined ? now : cut(reference);
  const n = now.length, m = before.length, table = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--)
    table[i][j] = now[i] === before[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  for (let i = 0, j = 0; i < n; i++) {
    while (j < m && now[i] !== before[j] && table[i][j + 1] >= table[i + 1][j]) j++;
    if (j < m && now[i] === before[j]) { node.append(now[i]); j++; } else node.append(element("mark", { textContent: now[i] }));
  }
  return node;
}

function draw(place, datum, reference) {
  if (!datum) { place.replaceChildren(); return; }
  if (datum.pixels) {
    const canvas = place.firstElementChild;
    if (canvas && canvas.width === datum.shape[1] && canvas.height === datum.shape[0]) paint(canvas, datum.pixels, datum.shape[2]);
    else place.replaceChildren(canvasOf(datum));
  } else if (datum.columns) place.replaceChildren(tableOf(datum, reference));
  else if (datum.text !== undefined) place.replaceChildren(textOf(datum.text, reference && reference.text));
  else {
    const canvas = place.querySelector("canvas") || element("canvas");
    if (!canvas.parentNode) place.replaceChildren(canvas);
    plot(canvas, datum.values, reference && reference.values);
  }
}

function small(datum, reference) {
  if (datum.pixels) return canvasOf(datum);
  if (datum.values) { const canvas = element("canvas"); plot(canvas, datum.values); return canvas; }
  const node = element("div", { className: "small" });
  if (datum.text !== undefined) { node.textContent = datum.text || "(empty)"; return node; }
  const order = datum.columns.map((_, i) => i);
  const differs = (i) => reference && reference.cells && shown(reference.cells[reference.columns.indexOf(datum.columns[i])]) !== shown(datum.cells[i]);
  order.sort((a, b) => (differs(b) ? 1 : 0) - (differs(a) ? 1 : 0));
  for (const i of order.slice(0, 5)) {
    const value = differs(i) ? element("mark", { textContent: shown(datum.cells[i]) }) : shown(datum.cells[i]);
    node.append(element("div", {}, element("b", { textContent: datum.columns[i] + " " }), value));
  }
  return node;
}

function tile(datum, caption, action, reference) {
  const button = element("button", { type: "button", title: caption, onclick: action }, small(datum, reference));
  if (caption) button.append(element("span", { textContent: caption }));
  return button;
}

// -- decoding, the newest code first -----------------------------------------------------------

let running = false, waiting = null;
async function decode(since = performance.now()) {
  waiting = since;
  if (running) return;
  running = true;
  try {
    while (waiting !== null) {
      const start = waiting;
      waiting = null;
      const [datum] = await api.decode([view.z]);
      decodedNow = datum;
      draw($("decoded"), datum, view.datum);
      performance.measure("slider to picture", { start, end: performance.now() });
      if (performance.getEntriesByName("slider to picture").length > 2000) performance.clearMeasures("slider to picture");
      say("");
    }
  } catch (error) { say(error.message); } finally { running = false; }
  later();
}

let timer = 0;
function later() { clearTimeout(timer); timer = setTimeout(strip, STRIP_DELAY); }

async function strip() {
  if (unit === null || !view.z || running) return;
  const { low, high } = run.units.find((u) => u.unit === unit);
  const values = run.info.alphabet ? [0, 1] : Array.from({ length: STEPS }, (_, i) => low + (high - low) * i / (STEPS - 1));
  const zs = values.map((value) => { const z = Float32Array.from(view.z); z[unit] = value; return z; });
  try {
    const data = await api.decode(zs);
    $("strip-title").textContent = "Traversal of " + nameOf(run.units.find((u) => u.unit === unit));
    $("strip").replaceChildren(...data.map((datum, i) =>
      tile(datum, values[i].toFixed(1), () => { view.z[unit] = values[i]; refresh(); commit(); }, view.datum)));
  } catch (error) { say(error.message); }
}

// -- the state, its history and its link --------------------------------------------------------

const encoded = (z) => btoa(String.fromCharCode(...new Uint8Array(Float32Array.from(z).buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
function decodedCode(text) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const z = new Float32Array(bytes.buffer);
    return z.length === run.info.units && z.every(Number.isFinite) ? z : null;
  } catch { return null; }
}

const snapshot = () => ({ ...view, z: Float32Array.from(view.z), amounts: { ...view.amounts }, condition: { ...view.condition } });

function fragment() {
  const parts = new URLSearchParams();
  if (view.row !== null) parts.set("row", view.row);
  parts.set("z", encoded(view.z));
  if (Object.values(view.amounts).some(Boolean)) parts.set("edit", JSON.stringify(view.amounts));
  if (Object.keys(view.condition).length) parts.set("condition", JSON.stringify(view.condition));
  return "#" + parts;
}

function commit() {
  if (committed) { past.push(committed); if (past.length > KEPT) past.shift(); }
  future.length = 0;
  settle();
}

function settle() {
  committed = snapshot();
  history.replaceState(null, "", fragment());
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
}

function restore(state) {
  Object.assign(view, { ...state, z: Float32Array.from(state.z), amounts: { ...state.amounts }, condition: { ...state.condition } });
  settle();
  refresh();
}

function undo() { if (past.length) { future.push(committed); restore(past.pop()); } }
function redo() { if (future.length) { past.push(committed); restore(future.pop()); } }

function refresh() {
  for (const node of document.querySelectorAll("#sliders .slider")) place(node, view.z[Number(node.dataset.unit)]);
  for (const node of document.querySelectorAll("#attributes .slider")) place(node, view.amounts[node.dataset.name] || 0);
  for (const node of document.querySelectorAll("#conditions select")) node.value = JSON.stringify(view.condition[node.name]);
  for (const node of $("data").children) node.setAttribute("aria-pressed", String(Number(node.dataset.row) === view.row));
  $("original-figure").hidden = !view.datum;
  draw($("original"), view.datum);
  $("original-caption").textContent = view.caption;
  drawMap();
  decode();
}

function place(node, value) {
  const input = node.querySelector("input"), index = node.dataset.unit;
  if (value < Number(input.min)) input.min = Math.floor(value);
  if (value > Number(input.max)) input.max = Math.ceil(value);
  input.value = value;
  node.querySelector(".value").textContent = value.toFixed(2);
  node.classList.toggle("changed", index === undefined ? value !== 0 : view.origin !== null && Math.abs(value - view.origin[index]) > 0.005);
}

function take(code, row, caption) {
  Object.assign(view, { z: Float32Array.from(code.z), origin: Array.from(code.z), amounts: {}, row, datum: code.datum, caption });
  if (code.condition && Object.keys(code.condition).length) view.condition = code.condition;
  refresh();
}

async function attempt(action) {
  try { say(""); return await action(); } catch (error) { say(error.message); return null; }
}

const described = (labels) => Object.entries(labels || {}).slice(0, 4).map(([name, value]) => `${name} ${shown(Number.isNaN(Number(value)) ? value : Number(value))}`).join(", ");

async function pick(row) {
  await attempt(async () => {
    const code = await api.code(row);
    take(code, row, `Row ${row}` + (code.labels && Object.keys(code.labels).length ? ": " + described(code.labels) : ""));
    commit();
  });
}

function take_z(z, caption) { take({ z, datum: null }, null, caption); commit(); }

// -- the parts of the page ----------------------------------------------------------------------

const nameOf = (u) => u.name ? `${u.name} (${u.unit})` : `unit ${u.unit}`;

function slider(title, label, low, high, step, onInput) {
  const input = element("input", { type: "range", min: low, max: high, step, ariaLabel: label });
  const node = element("div", { className: "slider", title }, element("span", { textContent: label }), input, element("span", { className: "value" }));
  input.addEventListener("input", (event) => onInput(Number(input.value), event.timeStamp));
  input.addEventListener("change", commit);
  return node;
}

function buildSliders() {
  const informative = run.units.filter((u) => u.informative);
  const few = informative.length ? informative.slice(0, showAll ? informative.length : FEW) : run.units.slice(0, FEW);
  const chosen = showAll ? run.units.slice(0, 256) : few;
  $("units-lead").textContent = `${informative.length} of ${run.info.units} units are informative. The last column is the rate (KL) in nats.`;
  $("sliders").replaceChildren(...chosen.map((u) => {
    const step = run.info.alphabet ? 1 : 0.01;
    const node = slider([nameOf(u), ...u.attributes].join(" · "), nameOf(u), u.low, u.high, step, (value, time) => {
      view.z[u.unit] = value;
      place(node, value);
      decode(time);
    });
    node.dataset.unit = u.unit;
    node.append(element("span", { className: "rate", textContent: u.rate === null ? "" : u.rate.toFixed(2) }));
    const look = () => { if (unit !== u.unit) { unit = u.unit; later(); } };
    node.addEventListener("pointerenter", look);
    node.addEventListener("focusin", look);
    return node;
  }));
  $("more").hidden = chosen.length === run.units.length && !showAll;
  $("more").textContent = showAll ? "Fewer" : `More (${run.units.length - chosen.length})`;
  if (view.z) refresh();
}

function buildAttributes() {
  $("attribute-part").hidden = !run.attributes.length;
  $("attributes").replaceChildren(...run.attributes.map((a) => {
    const node = slider(`1 is ${a.unit}. ${a.warning}`, a.name, a.low, a.high, (a.high - a.low) / 200, (value, time) => {
      const change = value - (view.amounts[a.name] || 0);
      view.amounts[a.name] = value;
      view.z = view.z.map((z, i) => z + change * a.step[i]);
      for (const other of document.querySelectorAll("#sliders .slider")) place(other, view.z[Number(other.dataset.unit)]);
      place(node, value);
      decode(time);
    });
    node.dataset.name = a.name;
    return node;
  }));
}

function buildConditions() {
  const names = Object.keys(run.info.conditions);
  $("conditions").replaceChildren(...names.map((name) => {
    view.condition[name] ??= run.info.conditions[name][0];
    const select = element("select", { name }, ...run.info.conditions[name].map((value) => element("option", { value: JSON.stringify(value), textContent: shown(value) })));
    select.onchange = () => { view.condition[name] = JSON.parse(select.value); refresh(); commit(); };
    return element("label", {}, name + " ", select);
  }));
}

async function turn(by) {
  page = Math.max(0, Math.min(page + by, Math.ceil(run.info.rows / PAGE) - 1));
  await attempt(async () => {
    const { data, labels } = await api.data(page * PAGE, PAGE);
    $("data").replaceChildren(...data.map((datum, i) => {
      const row = page * PAGE + i, node = tile(datum, isImage() ? "" : `row ${row}`, () => pick(row));
      node.title = `Row ${row} ${described(labels[i])}`;
      node.setAttribute("aria-label", node.title);
      node.dataset.row = row;
      node.setAttribute("aria-pressed", String(row === view.row));
      return node;
    }));
    $("place").textContent = `${page * PAGE} to ${page * PAGE + data.length - 1} of ${run.info.rows.toLocaleString("en")} ${run.info.split} data`;
    $("previous").disabled = page === 0;
    $("next").disabled = (page + 1) * PAGE >= run.info.rows;
  });
}

// -- the map --------------------------------------------------------------------------------------

let frame = null;
function mapScale() {
  const xs = run.map.points.map((p) => p[0]), ys = run.map.points.map((p) => p[1]);
  const extent = (v) => { const s = [...v].sort((a, b) => a - b); return [s[0], s[s.length - 1] - s[0] || 1]; };
  const [x, w] = extent(xs), [y, h] = extent(ys);
  frame = { to: ([a, b]) => [24 + 672 * (a - x) / w, 496 - 472 * (b - y) / h] };
}

function drawMap() {
  if (!run.map) return;
  const context = $("map").getContext("2d"), chosen = run.map.attributes[Number($("colour").value)];
  context.clearRect(0, 0, 720, 520);
  const values = chosen && chosen.values, numbers = (values || []).filter((v) => v !== null);
  const low = Math.min(...numbers), high = Math.max(...numbers);
  const tint = (v) => {
    if (!chosen) return colours.c1;
    if (v === null || v === -1 && chosen.kind === "category") return colours.faint;
    return chosen.kind === "category" ? colours["c" + (v % 11 + 1)] : colours["s" + Math.min(4, Math.floor(5 * (v - low) / (high - low || 1)))];
  };
  const colours = Object.fromEntries(["faint", "ink", "bg", ...Array.from({ length: 11 }, (_, i) => "c" + (i + 1)), "s0", "s1", "s2", "s3", "s4"].map((n) => [n, colour(n)]));
  context.globalAlpha = 0.75;
  run.map.points.forEach((point, i) => {
    const [x, y] = frame.to(point);
    context.fillStyle = tint(values && values[i]);
    context.beginPath(); context.arc(x, y, 4.5, 0, 7); context.fill();
  });
  context.globalAlpha = 1;
  if (view.z) {
    const at = [0, 1].map((k) => run.map.axes.reduce((sum, axis, i) => sum + axis[k] * (view.z[i] - run.map.mean[i]), 0));
    const [x, y] = frame.to(at);
    context.fillStyle = colours.bg; context.strokeStyle = colours.ink; context.lineWidth = 3;
    context.beginPath(); context.arc(x, y, 9, 0, 7); context.fill(); context.stroke();
  }
  const named = chosen && chosen.kind === "category" ? chosen.classes.map((n, i) => [n, colours["c" + (i % 11 + 1)]])
    : chosen ? [[shown(low), colours.s0], [shown(high), colours.s4]] : [];
  $("key").replaceChildren(...named.map(([name, tone]) => {
    const dot = element("i"); dot.style.background = tone;
    return element("li", {}, dot, name);
  }));
}

function clicked(event) {
  const box = $("map").getBoundingClientRect();
  const x = (event.clientX - box.left) * 720 / box.width, y = (event.clientY - box.top) * 520 / box.height;
  let best = 0, least = Infinity;
  run.map.points.forEach((point, i) => {
    const [a, b] = frame.to(point), distance = (a - x) ** 2 + (b - y) ** 2;
    if (distance < least) { least = distance; best = i; }
  });
  pick(run.map.rows[best]);
}

// -- actions ---------------------------------------------------------------------------------------

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function savePng() {
  const source = $("decoded").querySelector("canvas");
  if (!source) { say("PNG is for images and series; NPZ has the data."); return; }
  const scale = Math.max(1, Math.floor(512 / source.width)), large = element("canvas", { width: source.width * scale, height: source.height * scale });
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(source, 0, 0, large.width, large.height);
  large.toBlob((blob) => save(blob, "decoded.png"));
}

async function upload(file) {
  if (file.size > run.info.most_bytes) { say(`The file has ${file.size} bytes; at most ${run.info.most_bytes} are read.`); return; }
  await attempt(async () => { take(await api.file(file), null, file.name); commit(); });
}

async function sample() {
  await attempt(async () => {
    const drawn = await api.sample(isImage() ? 24 : 8, Number($("heat").value), Math.floor(Math.random() * 1e9));
    $("samples").replaceChildren(...drawn.data.map((datum, i) => tile(datum, "", () => take_z(drawn.z[i], "A sample"))));
  });
}

async function walk() {
  await attempt(async () => {
    const way = await api.path(Array.from(from), Array.from(view.z), STEPS, $("spherical").checked);
    $("path").replaceChildren(...way.data.map((datum, i) => tile(datum, "", () => take_z(way.z[i], "On the path"))));
  });
}

function listen() {
  $("undo").onclick = undo; $("redo").onclick = redo;
  $("previous").onclick = () => turn(-1); $("next").onclick = () => turn(1);
  $("more").onclick = () => { showAll = !showAll; buildSliders(); };
  $("reset").onclick = () => { if (view.origin) { view.z = Float32Array.from(view.origin); view.amounts = {}; refresh(); commit(); } };
  $("png").onclick = savePng;
  $("npz").onclick = () => attempt(async () => save(await api.npz(), "decoded.npz"));
  $("link").onclick = () => navigator.clipboard.writeText(location.href).then(() => say("The link is copied.", "note"), () => say("Copy the address of this page.", "note"));
  $("file").onchange = () => { if ($("file").files[0]) upload($("file").files[0]); $("file").value = ""; };
  $("text-form").onsubmit = (event) => { event.preventDefault(); attempt(async () => { take(await api.text($("text").value), null, "Your text"); commit(); }); };
  $("map").onclick = clicked;
  $("map").onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by) { event.preventDefault(); const n = run.map.rows.length, at = run.map.rows.indexOf(view.row); pick(run.map.rows[(at + by + n) % n]); }
  };
  $("colour").onchange = drawMap;
  $("start").onclick = () => { from = Float32Array.from(view.z); $("end").disabled = false; say("Now change the code or pick a datum, then press Path to here.", "note"); };
  $("end").onclick = walk;
  $("sample").onclick = sample;
  $("heat").oninput = () => { $("heat-value").textContent = $("heat").value; };
  $("theme").onclick = () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    $("theme").textContent = dark ? "Dark" : "Light";
    drawMap(); if (decodedNow) draw($("decoded"), decodedNow, view.datum);
  };
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.target.id === "text") return;
    const key = event.key.toLowerCase();
    if (key === "z" || key === "y") { event.preventDefault(); if (key === "y" || event.shiftKey) redo(); else undo(); }
  });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault(); document.body.classList.remove("dropping");
    if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
  });
  addEventListener("hashchange", () => opened());
}

async function opened() {
  const parts = new URLSearchParams(location.hash.slice(1)), row = parts.get("row"), z = decodedCode(parts.get("z") || "");
  const read = (name) => { try { return JSON.parse(parts.get(name)) || {}; } catch { return {}; } };
  if (parts.has("z") && !z) say("The link is of another run: it is not restored.");
  if (row !== null && /^\d+$/.test(row) && Number(row) < run.info.rows) await pick(Number(row));
  else if (z) take({ z, datum: null }, null, "From a link");
  else { await pick(0); return; }
  if (z) {
    view.z = z;
    const amounts = read("edit"), condition = read("condition");
    for (const a of run.attributes) if (Number.isFinite(amounts[a.name])) view.amounts[a.name] = amounts[a.name];
    for (const name of Object.keys(run.info.conditions)) if (name in condition) view.condition[name] = condition[name];
    refresh();
  }
  past.length = future.length = 0;
  settle();
}

async function begin() {
  try {
    await api.start();
  } catch (error) { say(error.message); return; }
  document.title = $("title").textContent = run.info.run;
  $("facts").textContent = `${run.info.space}, ${run.info.units} latent units`;
  $("theme").textContent = matchMedia("(prefers-color-scheme: dark)").matches ? "Light" : "Dark";
  const wide = !isImage();
  for (const id of ["data", "samples", "strip", "path"]) $(id).classList.toggle("wide", wide);
  document.querySelector(".views").classList.toggle("tall", wide);
  $("result").classList.toggle("large", wide);
  $("text-form").hidden = run.info.kind !== "text";
  $("png").hidden = ["table", "text"].includes(run.info.kind);
  $("start").disabled = Boolean(run.info.alphabet);
  $("colour").replaceChildren(...run.map.attributes.map((a, i) => element("option", { value: i, textContent: a.name })));
  $("colour").parentNode.hidden = !run.map.attributes.length;
  unit = run.units.length ? run.units[0].unit : null;
  mapScale();
  buildAttributes(); buildConditions(); buildSliders(); listen();
  await turn(0);
  await opened();
  document.body.dataset.ready = "true";
}
begin();
