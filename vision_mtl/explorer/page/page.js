// Sends the chosen image and damage to the program, one request at a time; the newest choice is always shown last.

import { classification, draw, element, head, neighbours, pictures } from "/drawing.js";

const $ = (id) => document.getElementById(id);
const RULES = {
  classic: "the classic repair", start: "the network before training", untrained: "a network's zero output",
  visible_mean: "the mean of the visible pixels", back_projection: "back-projection",
};
const USUAL_GRIDS = [2, 3, 4, 6, 8];
const state = { image: null, mode: "cells", rows: 4, columns: 4, cells: new Set(), mask: null, grey: false, factor: 1, other: null };
let run = null; // the reply of /api/start
let isWaiting = false, hasNewChoice = false;
let cursor = { row: 0, column: 0 }; // position of the brush in pixels, for the keyboard

async function request(path, sent) {
  let reply;
  try {
    const options = sent === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) };
    reply = await fetch(path, options);
  } catch {
    throw new Error("The program does not respond: was it stopped on its terminal? Start it again, then reload this page.");
  }
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

function showError(error) {
  $("error").textContent = error ? error.message.charAt(0).toUpperCase() + error.message.slice(1) : "";
  $("error").hidden = !error;
}

function damage() {
  if (state.other) return state.other;
  const { grey, factor } = state;
  if (state.mode === "cells") return { grid: [state.rows, state.columns], cells: [...state.cells], grey, factor };
  const cells = [];
  state.mask.forEach((hidden, number) => hidden && cells.push(number));
  return { grid: run.size, cells, grey, factor };
}

async function refresh() {
  if (!state.image) return;
  if (isWaiting) { hasNewChoice = true; return; }
  isWaiting = true;
  document.body.setAttribute("aria-busy", "true");
  const slow = setTimeout(() => { $("busy").textContent = "working …"; }, 250);
  do {
    hasNewChoice = false;
    try {
      const { label, ...image } = state.image;
      await show(await request("/api/repair", { image, damage: damage() }));
      showError(null);
    } catch (error) {
      showError(error);
    }
  } while (hasNewChoice);
  clearTimeout(slow);
  $("busy").textContent = "";
  isWaiting = false;
  document.body.setAttribute("aria-busy", "false");
}

async function show(found) {
  const [figures, heads] = await Promise.all([
    pictures(found.pictures),
    Promise.all(found.tasks.map((task) => head(task, found.views))),
    draw($("editor"), found.pictures.damaged ?? found.pictures.original),
  ]);
  $("pictures").replaceChildren(...figures, ...(found.classification ? [classification(found.classification)] : []));
  $("legend").hidden = !("error" in found.pictures || "classic_error" in found.pictures);
  $("how").textContent = found.how;
  $("heads").replaceChildren(...heads);
  $("neighbours").replaceChildren(...found.views.filter((v) => found.neighbours[v]).map((v) => neighbours(v, found.neighbours[v])));
  showSkill(found.scores);
}

function showSkill(scores) {
  const skill = scores?.skill_learned ?? null;
  $("skill").dataset.sign = skill === null || scores.start === null ? "" : skill > 0.005 ? "better" : skill < -0.005 ? "worse" : "level";
  $("skill-value").hidden = skill === null;
  $("skill-value").textContent = skill === null ? "" : `${skill < 0 ? "−" : "+"}${Math.abs(skill).toFixed(2)}`;
  if (!scores) {
    $("skill-words").textContent = "Learned: 1 is a perfect repair, 0 the best one without learning.";
    $("skill-numbers").textContent = "";
    return;
  }
  const share = skill === null ? 0 : Math.round(100 * Math.abs(skill));
  $("skill-words").textContent =
    skill === null ? "Nothing was repaired, or a rule without learning is perfect."
    : (share === 0 ? "As much error as without learning" : `${share} % ${skill > 0 ? "less" : "more"} error than without learning`)
      + ` (the best here: ${RULES[scores.best_rule] ?? scores.best_rule}).`
      + (scores.start === null ? " The network's start is not known, so this may not be learned." : "");
  const errors = [["the repair", scores.repaired], ["the classic repair", scores.classic], ["the network before training", scores.start ?? undefined]];
  if (!["classic", "start"].includes(scores.best_rule)) errors.push([RULES[scores.best_rule] ?? scores.best_rule, scores.best]);
  const texts = errors.filter(([, value]) => value !== undefined).map(([name, value]) => `${name} ${value.toPrecision(2)}`);
  const where = scores.scored < 0.9999 ? `the hidden ${(100 * scores.scored).toPrecision(2)} % of the pixels` : "all pixels";
  $("skill-numbers").textContent = `Mean squared error on ${where}: ${texts.join(", ")}. For scores of many images with intervals, see the run's result.`;
}

// ---- choosing an image

function choose(image) {
  state.image = image;
  for (const button of $("examples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(image.number !== undefined && Number(button.dataset.number) === image.number));
  }
  return refresh();
}

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`${file.name} cannot be read: ${reader.error.message}`));
    reader.readAsDataURL(file);
  });
}

async function openFile(file) {
  if (!file) return;
  try {
    const limit = run.limits.bytes;
    if (file.size > limit) throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${limit / 1e6} MB are allowed: choose a smaller image.`);
    if (file.size === 0) throw new Error(`${file.name} is empty.`);
    const { picture } = await request("/api/open", { data: await readFile(file) });
    $("drop").querySelector("strong").textContent = file.name.length > 40 ? `…${file.name.slice(-39)}` : file.name;
    $("drop").querySelector("span").textContent = "choose another file";
    await choose({ data: picture });
  } catch (error) {
    showError(error);
    $("file").value = ""; // so that the same file can be chosen again
  }
}

// ---- hiding cells

function drawCells() {
  const { rows, columns, cells } = state;
  const lengths = (edges) => edges.slice(1).map((edge, k) => `minmax(0, ${edge - edges[k]}fr)`).join(" ");
  const box = $("cells");
  box.style.gridTemplateRows = lengths(run.edges.rows[rows]);
  box.style.gridTemplateColumns = lengths(run.edges.columns[columns]);
  const made = [];
  for (let number = 0; number < rows * columns; number++) {
    const button = element("button", { type: "button", tabIndex: number ? -1 : 0 });
    button.setAttribute("aria-label", `row ${Math.floor(number / columns) + 1}, column ${(number % columns) + 1}`);
    button.setAttribute("aria-pressed", String(cells.has(number)));
    button.dataset.cell = number;
    made.push(button);
  }
  box.replaceChildren(...made);
  for (const chip of $("chips").children) chip.setAttribute("aria-pressed", String(chip.dataset.grid === `${rows}x${columns}`));
}

function toggle(button) {
  const number = Number(button.dataset.cell);
  if (!state.cells.delete(number)) state.cells.add(number);
  button.setAttribute("aria-pressed", String(state.cells.has(number)));
  refresh();
}

function moveAmongCells(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -state.columns, ArrowDown: state.columns };
  const from = event.target.dataset.cell;
  if (!(event.key in steps) || from === undefined) return;
  event.preventDefault();
  const sideways = Math.abs(steps[event.key]) === 1 && event.key !== "ArrowUp" && event.key !== "ArrowDown";
  const to = Number(from) + steps[event.key];
  if (to < 0 || to >= state.rows * state.columns) return;
  if (sideways && Math.floor(to / state.columns) !== Math.floor(from / state.columns)) return;
  const target = $("cells").children[to];
  event.target.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
}

function setGrid(rows, columns) {
  const clamp = (value, highest) => Math.min(Math.max(Math.round(value) || 1, 1), highest);
  state.rows = clamp(rows, Object.keys(run.edges.rows).length);
  state.columns = clamp(columns, Object.keys(run.edges.columns).length);
  $("rows").value = state.rows;
  $("columns").value = state.columns;
  const middle = Math.floor((state.rows - 1) / 2) * state.columns + Math.floor((state.columns - 1) / 2);
  state.cells = new Set(state.rows * state.columns > 1 ? [middle] : []);
  drawCells();
  refresh();
}

// ---- painting

function paint(row, column, erase) {
  const [height, width] = run.size;
  const radius = Number($("radius").value) - 0.5;
  for (let r = Math.max(0, Math.ceil(row - radius)); r <= Math.min(height - 1, row + radius); r++) {
    for (let c = Math.max(0, Math.ceil(column - radius)); c <= Math.min(width - 1, column + radius); c++) {
      if ((r - row) ** 2 + (c - column) ** 2 <= radius ** 2 + 0.25) state.mask[r * width + c] = erase ? 0 : 1;
    }
  }
  drawMask();
}

function drawMask(withCursor = false) {
  const [height, width] = run.size, canvas = $("brush"), context = canvas.getContext("2d");
  canvas.width = width;
  canvas.height = height;
  const pixels = context.createImageData(width, height);
  state.mask.forEach((hidden, number) => hidden && pixels.data.set([0, 114, 178, 90], 4 * number));
  if (withCursor) pixels.data.set([213, 94, 0, 255], 4 * (cursor.row * width + cursor.column));
  context.putImageData(pixels, 0, 0);
}

function place(event) {
  const box = $("brush").getBoundingClientRect(), [height, width] = run.size;
  const row = Math.floor(((event.clientY - box.top) / box.height) * height);
  const column = Math.floor(((event.clientX - box.left) / box.width) * width);
  return [row, column];
}

function stroke(event) {
  let [row, column] = place(event);
  const erase = $("erase").checked || event.shiftKey;
  const canvas = $("brush");
  canvas.setPointerCapture(event.pointerId);
  paint(row, column, erase);
  const move = (next) => {
    const [toRow, toColumn] = place(next), steps = Math.max(Math.abs(toRow - row), Math.abs(toColumn - column), 1);
    for (let k = 1; k <= steps; k++) paint(Math.round(row + ((toRow - row) * k) / steps), Math.round(column + ((toColumn - column) * k) / steps), erase);
    [row, column] = [toRow, toColumn];
    refresh();
  };
  const end = () => {
    canvas.removeEventListener("pointermove", move);
    refresh();
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", end, { once: true });
  canvas.addEventListener("pointercancel", end, { once: true });
  refresh();
}

function paintByKey(event) {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (event.key === " ") {
    paint(cursor.row, cursor.column, event.shiftKey || $("erase").checked);
    refresh();
  } else if (event.key in moves) {
    const [down, right] = moves[event.key], [height, width] = run.size;
    cursor.row = Math.min(Math.max(cursor.row + down, 0), height - 1);
    cursor.column = Math.min(Math.max(cursor.column + right, 0), width - 1);
  } else return;
  event.preventDefault();
  drawMask(true);
}

// ---- the other controls

function setMode(mode) {
  state.mode = mode;
  const brush = mode === "brush";
  $("cells").hidden = $("grid-row").hidden = brush;
  $("brush").hidden = $("brush-row").hidden = !brush;
  if (brush) drawMask();
  refresh();
}

function setOther(name) {
  const chosen = run.others.find((other) => other.name === name);
  state.other = chosen ? { name, number: 0 } : null;
  $("by-hand").disabled = Boolean(chosen);
  $("cells").inert = $("brush").inert = Boolean(chosen);
  $("cells").hidden = Boolean(chosen) || state.mode === "brush";
  $("brush").hidden = Boolean(chosen) || state.mode !== "brush";
  $("number").hidden = !chosen;
  $("number").replaceChildren(...(chosen?.damages ?? []).map((words, k) => element("option", { value: k, textContent: words })));
  refresh();
}

function showAll() {
  state.cells.clear();
  state.mask.fill(0);
  drawCells();
  drawMask();
  refresh();
}

function listen() {
  $("cells").addEventListener("click", (event) => event.target.dataset.cell !== undefined && toggle(event.target));
  $("cells").addEventListener("keydown", moveAmongCells);
  $("brush").addEventListener("pointerdown", stroke);
  $("brush").addEventListener("keydown", paintByKey);
  $("brush").addEventListener("blur", () => drawMask());
  $("show-all").addEventListener("click", showAll);
  $("grey").addEventListener("change", (event) => { state.grey = event.target.checked; refresh(); });
  for (const id of ["rows", "columns"]) $(id).addEventListener("change", () => setGrid($("rows").valueAsNumber, $("columns").valueAsNumber));
  $("controls").addEventListener("change", (event) => {
    if (event.target.name === "mode") setMode(event.target.value);
    if (event.target.name === "factor") { state.factor = Number(event.target.value); refresh(); }
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("other").addEventListener("change", (event) => setOther(event.target.value));
  $("number").addEventListener("change", (event) => { state.other.number = Number(event.target.value); refresh(); });
  $("file").addEventListener("change", (event) => openFile(event.target.files[0]));
  addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    openFile(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => openFile(event.clipboardData.files[0]));
}

// ---- the page

function build() {
  const { about, size: [height, width], heads, factors, grids } = run;
  document.documentElement.style.setProperty("--ratio", `${width} / ${height}`);
  document.title = `Explorer · ${about.run}`;
  const repairs = about.repair_run ? ` · repairs by ${about.repair_run}` : "";
  $("about").textContent = `${about.run} · ${about.backbone} · step ${about.step} · ${height} × ${width} pixels${repairs}`;
  state.mask = new Uint8Array(height * width);
  cursor = { row: Math.floor(height / 2), column: Math.floor(width / 2) };
  $("radius").max = Math.max(2, Math.round(Math.min(height, width) / 5));
  $("radius").value = Math.max(1, Math.round(Math.min(height, width) / 16));
  $("rows").max = Object.keys(run.edges.rows).length;
  $("columns").max = Object.keys(run.edges.columns).length;
  const trained = new Set(grids.map(([rows, columns]) => `${rows}x${columns}`));
  const offered = new Set([...USUAL_GRIDS.filter((n) => n in run.edges.rows && n in run.edges.columns).map((n) => `${n}x${n}`)]);
  for (const grid of trained) if (grid.split("x").every((n) => n <= 16)) offered.add(grid);
  $("chips").replaceChildren(...[...offered].map((grid) => {
    const [rows, columns] = grid.split("x");
    const words = (rows === columns ? rows : `${rows}×${columns}`) + (trained.has(grid) ? "•" : "");
    const chip = element("button", { type: "button", textContent: words, title: `${rows} × ${columns}${trained.has(grid) ? ", trained on" : ""}` });
    chip.dataset.grid = grid;
    chip.addEventListener("click", () => setGrid(Number(rows), Number(columns)));
    return chip;
  }));
  $("factors").replaceChildren(...[1, ...factors.offered].map((factor) => {
    const input = element("input", { type: "radio", name: "factor", value: factor, checked: factor === 1 });
    const words = factor === 1 ? "full" : `1/${factor}${factors.trained.includes(factor) ? "•" : ""}`;
    return element("label", {}, input, element("span", { textContent: words }));
  }));
  $("grey-row").hidden = !run.has_colour;
  if (heads.includes("decolorise")) $("grey").nextElementSibling.textContent += "•";
  const borrow = ["This run has no head that repairs. Use another run's: ", element("code", { textContent: "--explore.repair_with RUN" })];
  $("trained").replaceChildren(...(heads.length ? ["• trained by this run"] : borrow));
  $("other-row").hidden = run.others.length === 0;
  $("other").replaceChildren(element("option", { value: "", textContent: "by hand, above" }), ...run.others.map(({ name, classifies }) => element("option", { value: name, textContent: classifies ? `${name} (classification)` : name })));
  $("no-heads").hidden = run.tasks.length > 0;
  const train = element("code", { textContent: `--stage finetune --init_from ${about.run}` });
  $("no-heads").replaceChildren("This run has no task heads. Train them: ", train);
  $("note").hidden = !about.note;
  $("note").textContent = about.note ?? "";
  $("near").hidden = run.num_indexed === 0;
  $("near-words").textContent = `Among ${run.num_indexed.toLocaleString("en")} training images, by cosine similarity of the backbone's features, without the image itself.`;
  $("examples").replaceChildren(...run.examples.map(({ number, labels }) => {
    const words = Object.entries(labels).map(([task, text]) => `${task}: ${text}`).join(", ") || `image ${number}`;
    const button = element("button", { type: "button", title: words }, element("img", { src: `/images/${number}.png`, alt: words, loading: "lazy" }));
    button.dataset.number = number;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose({ number }));
    return element("li", {}, button);
  }));
}

async function start() {
  try {
    run = await request("/api/start");
  } catch (error) {
    showError(error);
    return;
  }
  build();
  listen();
  const [rows, columns] = run.grids[0] ?? [4, 4];
  setGrid(rows, columns);
  if (run.examples.length) await choose({ number: run.examples[0].number });
  else document.body.setAttribute("aria-busy", "false");
  document.body.dataset.ready = "yes";
}

start();
