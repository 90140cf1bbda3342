// Builds elements from the replies. Text is inserted as text and pictures as pixels: nothing is parsed as HTML.

export const VIEWS = { original: "original", damaged: "damaged", repaired: "repaired" };
const MAX_CLASSES = 5; // rows of a task's table

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export async function bitmap(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

export async function draw(canvas, text) {
  const picture = await bitmap(text);
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
}

async function pictureOf(text, label) {
  const canvas = element("canvas", { role: "img" });
  canvas.setAttribute("aria-label", label);
  await draw(canvas, text);
  return canvas;
}

const ORDER = [
  ["original", "original"],
  ["repaired", "repaired"],
  ["classic", "classic repair"],
  ["damaged", "damaged"],
  ["error", "error of the repair"],
  ["classic_error", "error of the classic"],
];

export async function pictures(found) {
  const shown = ORDER.filter(([key]) => key in found);
  return Promise.all(
    shown.map(async ([key, words]) => {
      const frame = element("div", { className: "frame" }, await pictureOf(found[key], words));
      const figure = element("figure", {}, frame, element("figcaption", { textContent: words }));
      figure.dataset.picture = key;
      return figure;
    }),
  );
}

const percent = (p) => (p >= 0.9995 ? "100 %" : p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : `${(100 * p).toFixed(1)} %`);

function table(views, rows, drawn = []) {
  const head = element("tr", {}, element("th", { scope: "col" }, element("span", { className: "hidden", textContent: "prediction" })));
  head.append(...views.map((view) => element("th", { scope: "col", textContent: VIEWS[view] })));
  const body = rows.map(([name, cells]) => {
    const row = element("tr", {}, element("th", { scope: "row", textContent: name, title: name }));
    for (const { text, share, predicted } of cells) {
      const cell = element("td", { textContent: text, className: predicted ? "predicted" : "" });
      cell.style.setProperty("--p", share);
      row.append(cell);
    }
    return row;
  });
  if (drawn.length) {
    const cells = drawn.map((canvas) => element("td", {}, canvas));
    body.unshift(element("tr", { className: "masks" }, element("th", { scope: "row", textContent: "where" }), ...cells));
  }
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

// Classes sorted by their largest share in any view.
function ranked(classes, sharesOf) {
  const best = (name) => Math.max(...sharesOf.map((shares) => shares[name]));
  return [...classes].sort((a, b) => best(b) - best(a)).slice(0, MAX_CLASSES);
}

export async function head(task, views) {
  const predictions = views.map((view) => task.predictions[view]);
  const made = element("article", { className: "head" });
  made.dataset.task = task.name;
  made.append(element("h3", {}, task.name, " ", element("span", { textContent: `· ${task.meaning}` })));
  if ("value" in predictions[0]) {
    const cells = predictions.map(({ value }) => ({ text: String(Number(value.toPrecision(4))), share: 0, predicted: true }));
    made.append(table(views, [["value", cells]]));
    return made;
  }
  const sharesOf = predictions.map(({ probabilities, shares }) => probabilities ?? shares);
  const isPredicted = (prediction, name, share) =>
    "class" in prediction ? prediction.class === name : "classes" in prediction ? prediction.classes.includes(name) : share >= 0.5;
  const rows = ranked(task.classes, sharesOf).map((name) => [
    name,
    predictions.map((prediction, k) => {
      const share = sharesOf[k][name];
      return { text: percent(share), share, predicted: isPredicted(prediction, name, share) };
    }),
  ]);
  const over = (view) => pictureOf(task.pictures[view], `${task.name}, classes over the ${VIEWS[view]} image`);
  made.append(table(views, rows, task.pictures ? await Promise.all(views.map(over)) : []));
  const more = task.classes.length - rows.length;
  if (more > 0) made.append(element("p", { className: "quiet", textContent: `and ${more} more classes` }));
  return made;
}

export function classification(found) {
  const rows = Object.entries(found.probabilities).map(([name, p]) => [name, [{ text: percent(p), share: p, predicted: name === found.true }]]);
  const made = table(["original"], rows);
  made.querySelector("thead").remove();
  const caption = element("figcaption", { textContent: `Predicted probabilities; the true class, ${found.true}, is bold.` });
  return element("figure", { className: "classification" }, made, caption);
}

export function neighbours(view, found) {
  const items = found.map(({ number, similarity, labels }) => {
    const words = Object.entries(labels).map(([task, text]) => `${task}: ${text}`);
    const picture = element("img", { src: `/images/${number}.png`, alt: words.join(", ") || `training image ${number}` });
    return element("li", {}, picture, element("b", { textContent: similarity.toFixed(2) }), ...words.map((text) => element("small", { textContent: text })));
  });
  const row = element("div", { className: "near-row" }, element("h3", { textContent: `to the ${VIEWS[view]}` }), element("ol", {}, ...items));
  row.dataset.view = view;
  return row;
}
