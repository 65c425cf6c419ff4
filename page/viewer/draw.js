// One picture and what two networks see in it, drawn in the browser.
//
// draw.js, words.js and hands.js are one function body, in this order: `js_on_load` of the viewer, with Gradio's
// `element`, `trigger`, `props` and `watch`. The server sends label maps once an answer; every view, zoom and read-out
// after that is made here, of exactly those label maps.
"use strict";

const IGNORE_INDEX = 255; // in a ground truth: pixels that do not count
const FOG = "rgb(236 236 236 / 72%)"; // over the picture in grey, where there is nothing to tell
const UNLABELLED = 0xff808080;
// Sure to unsure; the lightness grows evenly, so that it reads in grey and for colour-blind eyes (after "cividis",
// Nuñez, Anderton, Renslow 2018).
const DOUBT = [[0, 24, 62], [33, 55, 108], [84, 89, 109], [124, 123, 120], [170, 160, 116], [217, 200, 96], [255, 233, 69]];
// Who is wrong: in the colours of the two sides, and dark for both.
const WRONG = [[43, 108, 176], [240, 140, 30], [45, 20, 50]];
const CRISP = 3; // screen pixels a picture's pixel, from which on it is drawn as a square
const CLOSEST = 48; // CSS pixels a picture's pixel, at most
const STEP = 1.4; // of the zoom
const CLICK = 5; // CSS pixels that a finger may move and still mean one place

const root = element.querySelector(".viewer");
const stage = root.querySelector(".stage");
const canvas = root.querySelector("canvas");
const find = (selector) => root.querySelector(selector);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const opacity = Number(find(".opacity input").value) / 100;
const look = { view: "Overlay", layout: "curtain", opacity, patterns: false, hidden: new Set(), split: 0.5 };
const gaze = { zoom: 1, x: 0.5, y: 0.5 }; // zoom 1 shows all; x, y: fraction of the picture in the middle
let answer = null; // what is shown; while the networks work on a new picture, without labels
let original = null; // the picture as it was opened: {key, picture}
let colours = null; // the same in k colours: {key, k, picture}
let newest = null; // key of the picture that was opened last
let latest = 0; // of the values that were shown; older ones that arrive later are dropped
let [repaints, repainted] = [0, 0]; // pictures in k colours: how many came, and the number of that which is shown
let shown = 0; // answers so far
let layers = new Map(); // drawings of the answer at its own size, made when first looked at
let pointed = null; // the pixel under the mouse
let pinned = null; // the pixel clicked on, or under the keyboard's cursor
let steering = false; // whether arrow keys move the cursor rather than the picture

// ---- an answer arrives ---------------------------------------------------------------------------------------------

/** value: a picture that the networks are asked about, or their answer; see page/viewer/__init__.py. */
async function show(value) {
  const mine = ++latest;
  if (!value.planes || newest === null) newest = value.facts.key;
  const [planes, picture] = await Promise.all([
    value.planes ? fetched(value.planes.url).then(inflated) : null,
    decoded(value.picture.url),
  ]).catch(() => []);
  const { facts } = value;
  if (facts.key !== newest) return; // another picture was opened meanwhile
  if (picture && !value.planes) {
    if (original) window.unetLive?.stop(); // another picture takes the camera's place
    original = { key: facts.key, picture };
    draw();
  }
  if (mine !== latest) return; // the answer may arrive before the picture
  if (!picture) {
    find("[aria-live]").textContent = "This picture did not arrive: click the example, or drop it, again.";
    return hint(find("[aria-live]").textContent, 10_000);
  }
  const before = answer;
  const [height, width] = facts.size;
  const plane = (i) => planes.subarray(i * width * height, (i + 1) * width * height);
  answer = { ...before, ...facts, width, height, picture, labels: null, confidences: null, truth: null };
  if (planes) {
    Object.assign(answer, { labels: [plane(0), plane(1)], confidences: [plane(2), plane(3)] });
    answer.truth = facts.truth ? plane(4) : null;
  } else {
    answer.colors = null;
  }
  layers = new Map();
  if (before?.key !== answer.key) {
    Object.assign(gaze, { zoom: 1, x: 0.5, y: 0.5 });
    pointed = pinned = null;
  }
  const names = (classes) => JSON.stringify(classes ?? []);
  if (names(before?.classes) !== names(answer.classes)) look.hidden.clear();
  describe();
  draw();
  if (planes) root.dataset.answer = ++shown; // tests wait for it
}

/** The picture in k colours, after the slider moved: {key, k, picture}. */
async function paint(value) {
  const mine = ++repaints;
  const picture = await decoded(value.picture.url).catch(() => null);
  if (!picture || mine < repainted) return;
  repainted = mine;
  colours = { key: value.key, k: value.k, picture };
  root.dataset.colours = value.k; // tests wait for it
  if (!answer) return;
  describe();
  draw();
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} ${url}`);
  return response;
}

async function inflated(response) {
  const stream = response.body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

// ---- drawings of the size of the picture -----------------------------------------------------------------------------

function blank() {
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [answer.width, answer.height];
  return sheet;
}

/** A canvas with the colour that ``colorOf(i, x, y)`` gives to each pixel, as 0xAABBGGRR; 0 is clear. */
function filled(colorOf) {
  const sheet = blank();
  const data = new ImageData(answer.width, answer.height);
  const pixels = new Uint32Array(data.data.buffer);
  for (let y = 0, i = 0; y < answer.height; y++) for (let x = 0; x < answer.width; x++, i++) pixels[i] = colorOf(i, x, y);
  sheet.getContext("2d").putImageData(data, 0, 0);
  return sheet;
}

function layer(name, make) {
  if (!layers.has(name)) layers.set(name, make());
  return layers.get(name);
}

const packed = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
const luma = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b;

/** What is seen of a class at a place, as a function (label, x, y) -> colour, 0 for nothing. */
function ink({ background = false } = {}) {
  const colors = new Uint32Array(256);
  const strokes = new Uint32Array(256);
  answer.classes.forEach(({ name, color, painted }, i) => {
    if (look.hidden.has(name) || !(painted || background)) return;
    const stroke = luma(color) > 90 ? color.map((c) => 0.45 * c) : color.map((c) => 110 + 0.57 * c);
    [colors[i], strokes[i]] = [packed(color), packed(stroke)];
  });
  if (!look.patterns) return (label) => colors[label];
  const pitch = Math.max(6, Math.round(Math.max(answer.width, answer.height) / 70));
  return (label, x, y) => (onStroke(label, x, y, pitch) ? strokes[label] : colors[label]);
}

/** Whether a class's pattern has a stroke at this place: plain, /, -, dots, \, |, squares; then closer together. */
function onStroke(label, x, y, pitch) {
  const pattern = answer.classes[label]?.pattern ?? 0;
  if (pattern === 0) return false;
  const period = pattern <= 6 ? pitch : Math.max(4, pitch >> 1);
  const [u, v, width] = [x % period, y % period, Math.max(1, period >> 2)];
  switch (pattern % 6) {
    case 1: return (x + y) % period < width;
    case 2: return v < width;
    case 3: return u < 2 * width && v < 2 * width;
    case 4: return (((x - y) % period) + period) % period < width;
    case 5: return u < width;
    default: return u < width || v < width;
  }
}

/** The picture in grey under fog. */
function fog() {
  const sheet = blank();
  const pen = sheet.getContext("2d");
  pen.drawImage(answer.picture, 0, 0);
  pen.globalCompositeOperation = "saturation";
  pen.fillStyle = "#808080";
  pen.fillRect(0, 0, answer.width, answer.height);
  pen.globalCompositeOperation = "source-over";
  pen.fillStyle = FOG;
  pen.fillRect(0, 0, answer.width, answer.height);
  return sheet;
}

/** Fog but where ``isClear(i)``; there ``colorOf(i, x, y)``, and the picture where that is 0. */
function overFog(isClear, colorOf) {
  const sheet = blank();
  const pen = sheet.getContext("2d");
  pen.drawImage(layer("fog", fog), 0, 0);
  pen.globalCompositeOperation = "destination-out";
  pen.drawImage(filled((i) => (isClear(i) ? 0xff000000 : 0)), 0, 0);
  pen.globalCompositeOperation = "source-over";
  pen.drawImage(filled((i, x, y) => (isClear(i) ? colorOf(i, x, y) : 0)), 0, 0);
  return sheet;
}

/** Labels along the borders between classes; elsewhere nothing. */
function outline(labels) {
  const { width: w, height: h } = answer;
  const reach = Math.max(1, Math.round(Math.max(w, h) / 600));
  const color = ink();
  return filled((i, x, y) => {
    const label = labels[i];
    const edge =
      labels[i - Math.min(x, reach)] !== label || labels[i + Math.min(w - 1 - x, reach)] !== label ||
      labels[i - w * Math.min(y, reach)] !== label || labels[i + w * Math.min(h - 1 - y, reach)] !== label;
    return edge ? color(label, x, y) : 0;
  });
}

function confidence(side) {
  const floor = 1 / answer.classes.length; // no class wins with less
  const ramp = Array.from({ length: 256 }, (_, level) => {
    const place = clamp((1 - level / 255) / (1 - floor), 0, 1) * (DOUBT.length - 1);
    const below = Math.min(Math.floor(place), DOUBT.length - 2);
    return packed(DOUBT[below].map((c, k) => Math.round(c + (place - below) * (DOUBT[below + 1][k] - c))));
  });
  const [labels, levels] = [answer.labels[side], answer.confidences[side]];
  const color = ink({ background: true });
  return filled((i) => (color(labels[i], 1, 1) ? ramp[levels[i]] : 0));
}

function errors(side) {
  const [labels, { truth }, color] = [answer.labels[side], answer, ink()];
  return overFog(
    (i) => truth[i] !== labels[i],
    (i, x, y) => (truth[i] === IGNORE_INDEX ? stripe(x, y) && UNLABELLED : color(labels[i], x, y)),
  );
}

/** Both classes where the networks differ, in stripes. */
function difference() {
  const [[one, other], color] = [answer.labels, ink()];
  return overFog((i) => one[i] !== other[i], (i, x, y) => color(stripe(x, y) ? one[i] : other[i], x, y));
}

/** Which of the networks is wrong. */
function mistakes() {
  const [[one, other], { truth }] = [answer.labels, answer];
  const colors = WRONG.map(packed);
  return overFog(
    (i) => truth[i] !== one[i] || truth[i] !== other[i],
    (i, x, y) => {
      if (truth[i] === IGNORE_INDEX) return stripe(x, y) && UNLABELLED;
      return colors[truth[i] === other[i] ? 0 : truth[i] === one[i] ? 1 : 2];
    },
  );
}

function stripe(x, y) {
  const width = Math.max(2, Math.round(Math.max(answer.width, answer.height) / 160));
  return Math.floor((x + y) / width) & 1;
}

function solid(labels, options) {
  const color = ink(options);
  return filled((i, x, y) => color(labels[i], x, y));
}

/** What lies over the picture in a pane -> [canvas, opacity]. */
function over(pane) {
  const { view, opacity } = look;
  if (!answer.labels || view === "Colours") return null;
  if (pane === "picture") return view === "Errors" ? [layer("truth", () => solid(answer.truth)), opacity] : null;
  if (pane === "difference") {
    return view === "Errors" ? [layer("mistakes", mistakes), 1] : [layer("difference", difference), 1];
  }
  const side = pane === "left" ? 0 : 1;
  const [labels, other] = [answer.labels[side], answer.labels[1 - side]];
  const color = ink();
  const make = {
    Overlay: () => solid(labels),
    Masks: () => solid(labels, { background: true }),
    Outline: () => outline(labels),
    Disagreement: () => overFog((i) => labels[i] !== other[i], (i, x, y) => color(labels[i], x, y)),
    Confidence: () => confidence(side),
    Errors: () => errors(side),
  }[view];
  return [layer(`${view} ${side}`, make), view === "Overlay" ? opacity : 1];
}

/** What lies under it: the picture as the networks saw it, or the two that *Colours* compares. */
function under(pane) {
  if (look.view !== "Colours") return answer.picture;
  const chosen = pane === "left" ? original : colours;
  return chosen?.key === answer.key ? chosen.picture : answer.picture;
}

/** Draw a pane's picture with its corner at the pen's origin and one unit a pixel. */
function paintPane(pen, pane) {
  pen.drawImage(under(pane), 0, 0, answer.width, answer.height);
  const drawn = over(pane);
  if (!drawn) return;
  pen.globalAlpha = drawn[1];
  pen.drawImage(drawn[0], 0, 0);
  pen.globalAlpha = 1;
}

// ---- on the screen ---------------------------------------------------------------------------------------------------

/** Where the panes are in the stage, in CSS pixels; those of the curtain lie on each other. */
function panes() {
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  if (look.layout === "curtain") {
    return ["left", "right"].map((name) => ({ name, x: 0, y: 0, w, h }));
  }
  const gap = 4;
  const names = look.view === "Colours" ? ["left", "right"] : ["left", "right", "picture", "difference"];
  const [half, low] = [(w - gap) / 2, names.length > 2 ? (h - gap) / 2 : h];
  return names.map((name, i) => ({ name, x: (i % 2) * (half + gap), y: (i >> 1) * (low + gap), w: half, h: low }));
}

const fit = (pane) => Math.min(pane.w / answer.width, pane.h / answer.height);
const closest = (pane) => Math.max(8, CLOSEST / fit(pane));

/** Where the picture lies for a pane: its corner, and CSS pixels a pixel. */
function place(pane) {
  const scale = fit(pane) * gaze.zoom;
  const left = pane.x + pane.w / 2 - gaze.x * answer.width * scale;
  const top = pane.y + pane.h / 2 - gaze.y * answer.height * scale;
  return { left, top, scale };
}

/** The picture stays in its panes: no side of it comes inside where it is larger, and it is centred where smaller. */
function settle() {
  const [pane] = panes();
  gaze.zoom = clamp(gaze.zoom, 1, closest(pane));
  const scale = fit(pane) * gaze.zoom;
  for (const [axis, seen] of [["x", pane.w / (scale * answer.width)], ["y", pane.h / (scale * answer.height)]]) {
    gaze[axis] = seen >= 1 ? 0.5 : clamp(gaze[axis], seen / 2, 1 - seen / 2);
  }
}

/** Where the divider may be: from edge to edge of what is seen of the picture. */
function curtainSpan() {
  const [pane] = panes();
  const { left, scale } = place(pane);
  return [Math.max(left, pane.x), Math.min(left + answer.width * scale, pane.x + pane.w)];
}

let due = 0;
function draw() {
  if (!due) due = requestAnimationFrame(drawNow);
}

function drawNow() {
  due = 0;
  if (!answer || !stage?.clientWidth) return;
  settle();
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(stage.clientWidth * ratio), Math.round(stage.clientHeight * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, w, h);
  const [from, to] = curtainSpan();
  const edge = from + look.split * (to - from);
  for (const pane of panes()) {
    const { left, top, scale } = place(pane);
    pen.save();
    pen.scale(ratio, ratio);
    pen.beginPath();
    if (look.layout === "grid") pen.rect(pane.x, pane.y, pane.w, pane.h);
    else if (pane.name === "left") pen.rect(0, 0, edge, pane.h);
    else pen.rect(edge, 0, pane.w - edge, pane.h);
    pen.clip();
    pen.translate(left, top);
    pen.scale(scale, scale);
    pen.imageSmoothingEnabled = scale * ratio < CRISP;
    pen.imageSmoothingQuality = "high";
    paintPane(pen, pane.name);
    if (look.view === "Outline") numberObjects(pen, pane.name, scale);
    markCursor(pen, scale);
    pen.restore();
  }
  placeDivider(edge);
  find('[data-do="reset"] output').textContent = gaze.zoom > 1 ? `×${gaze.zoom.toFixed(1)}` : "fit";
  canvas.style.touchAction = gaze.zoom > 1 ? "none" : "pan-y"; // a thumb that scrolls the page gets past the picture
  readOut();
}

/** The number of each object that is large enough for it on the screen, in the order of the table objects.csv. */
function numberObjects(pen, pane, scale) {
  const objects = answer.labels && answer.objects?.[["left", "right"].indexOf(pane)];
  if (!objects || answer.classes.some(({ name, painted }) => painted && look.hidden.has(name))) return;
  Object.assign(pen, { font: `600 ${11 / scale}px sans-serif`, textAlign: "center", textBaseline: "middle" });
  Object.assign(pen, { lineWidth: 3 / scale, lineJoin: "round", strokeStyle: "#000", fillStyle: "#fff" });
  objects.forEach(([x, y, radius], i) => {
    if (radius * scale < 7) return;
    pen.strokeText(i + 1, x, y);
    pen.fillText(i + 1, x, y);
  });
}

function markCursor(pen, scale) {
  const at = pointed ?? pinned;
  if (!at) return;
  const side = Math.max(1, 9 / scale);
  const [x, y] = [at.x + 0.5 - side / 2, at.y + 0.5 - side / 2];
  for (const [color, width] of [["#000", 3], ["#fff", 1.5]]) {
    [pen.strokeStyle, pen.lineWidth] = [color, width / scale];
    pen.strokeRect(x, y, side, side);
  }
}

function placeDivider(edge) {
  const divider = find(".divider");
  divider.hidden = look.layout !== "curtain";
  divider.style.left = `${edge}px`;
  const percent = Math.round(100 * look.split);
  divider.setAttribute("aria-valuenow", percent);
  const [left, right] = halves();
  divider.setAttribute("aria-valuetext", `${percent} % ${left}, ${100 - percent} % ${right}`);
}

