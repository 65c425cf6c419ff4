// A picture in, the answers of two networks under a divider, and the picture in k colours: all in the visitor's browser.
import * as ort from "./ort.wasm.bundle.min.mjs";
ort.env.wasm.numThreads = 1; // more threads need headers that static hosts do not send
ort.env.wasm.proxy = true; // networks run in a Web Worker: the page never freezes
const MAX_PIXELS = 2 ** 20; // a network without a working size needs about a kilobyte of memory a pixel
const $ = (selector) => document.querySelector(selector);
const [canvases, titles] = ["canvas", "#picture span"].map((selector) => document.querySelectorAll(selector));
const percent = (share) => `${(100 * share).toFixed(share < 0.1 || share > 0.99 ? 1 : 0)} %`;
const say = (text) => ($("#status").textContent = text);

function element(tag, text = "", attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children, text);
  return made;
}

const about = await (await fetch("page.json")).json();
const names = about.networks.map(({ name }) => name);
let [picture, shown] = [null, null]; // ImageData; { picture, image, answers } on the stage: image is what the networks saw
let [stream, chosen] = [null, 0]; // of the camera; how many pictures and cameras were: one that comes late is left
let [asked, turn] = [0, Promise.resolve()]; // the networks look at one picture after the other

// ---- pictures come in -------------------------------------------------------------------------------------------------

/** Take a picture or a frame, over white, at no more than MAX_PIXELS. */
function take(source, width, height) {
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
  const [w, h] = [width, height].map((length) => Math.max(1, Math.floor(length * scale)));
  const context = new OffscreenCanvas(w, h).getContext("2d", { willReadFrequently: true });
  Object.assign(context, { fillStyle: "#fff", imageSmoothingQuality: "high" });
  context.fillRect(0, 0, w, h);
  context.drawImage(source, 0, 0, w, h);
  picture = context.getImageData(0, 0, w, h);
}

async function open(blob) {
  if (!blob) return;
  const mine = stop();
  const bitmap = await createImageBitmap(await blob, { colorSpaceConversion: "none" }).catch(() => null);
  if (mine !== chosen) return;
  if (!bitmap) return say(`${blob.name ?? "This"} is no picture that this browser can read: use JPEG, PNG or WebP.`);
  take(bitmap, bitmap.width, bitmap.height);
  shown = { picture, image: picture, answers: null };
  draw();
  await ask();
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  Object.assign($("video"), { srcObject: (stream = null), hidden: true });
  $("#camera").textContent = "Camera";
  document.body.classList.remove("asking");
  return ++chosen;
}

async function live() {
  if (stream) return stop();
  const [video, mine] = [$("video"), stop()];
  const wanted = { facingMode: "environment", width: { ideal: 640 } };
  const opened = await navigator.mediaDevices?.getUserMedia({ video: wanted }).catch(() => null);
  if (mine !== chosen) return opened?.getTracks().forEach((track) => track.stop());
  if (!opened) return say("There is no camera that this page may use: allow it in the browser's settings.");
  stream = opened;
  $("#camera").textContent = "Stop";
  await Object.assign(video, { srcObject: stream, hidden: false }).play().catch(() => null); // stopped at once
  while (mine === chosen) {
    take(video, video.videoWidth, video.videoHeight);
    await ask();
  }
}

// ---- networks ---------------------------------------------------------------------------------------------------------

/** Ask both networks about the picture. A later question takes the place of those that wait. */
function ask() {
  const mine = ++asked;
  document.body.classList.toggle("asking", !stream);
  turn = turn.then(() => answer(mine)).catch((error) => {
    stop();
    say(`The networks cannot answer here: ${error.message ?? error}`);
  });
  return turn;
}

async function answer(mine) {
  if (mine !== asked) return;
  const now = { picture, image: $("#reduced").checked ? reduce(picture).image : picture, answers: [] };
  const { width, height, data } = now.image;
  for (const network of about.networks) {
    if (!network.session) say(`Loading ${network.name} …`);
    network.session ??= await ort.InferenceSession.create(network.file);
    if (!stream) say(`${network.name} looks at ${width} × ${height} pixels …`);
    const image = new ort.Tensor("uint8", Uint8Array.from(data.filter((_, i) => i % 4 < 3)), [height, width, 3]);
    const start = performance.now();
    const { label_map, confidence } = await network.session.run({ image });
    now.answers.push({ labels: label_map.data, confidence: confidence.data, seconds: (performance.now() - start) / 1000 });
    if (mine !== asked) return;
  }
  shown = now;
  document.body.classList.remove("asking");
  say(now.answers.map(({ seconds }, side) => `${names[side]} took ${seconds.toFixed(2)} s`).join(", ") + ".");
  tell();
  draw();
}

// ---- k colours --------------------------------------------------------------------------------------------------------

/** Index of the colour nearest to r, g, b. colors: [r, g, b] each. */
function nearest(colors, r, g, b) {
  let [best, least] = [0, Infinity];
  for (let c = 0; c < colors.length; c++) {
    const distance = (colors[c][0] - r) ** 2 + (colors[c][1] - g) ** 2 + (colors[c][2] - b) ** 2;
    if (distance < least) [best, least] = [c, distance];
  }
  return best;
}

/** k-means (k-means++ seeds, then Lloyd's steps) of 4096 evenly spaced pixels; always the same for a picture. */
function kmeans(data, k) {
  const step = Math.max(1, data.length / 4 / 4096);
  const places = Array.from({ length: data.length / 4 / step }, (_, i) => 4 * Math.floor(i * step));
  const samples = places.map((at) => [data[at], data[at + 1], data[at + 2]]);
  const distances = samples.map(() => Infinity);
  let colors = [];
  for (let seed = 1, pick = samples.length >> 1; pick >= 0 && colors.length < k; ) {
    const [r, g, b] = samples[pick];
    colors.push(samples[pick]);
    samples.forEach((s, i) => (distances[i] = Math.min(distances[i], (s[0] - r) ** 2 + (s[1] - g) ** 2 + (s[2] - b) ** 2)));
    seed = (seed * 48271) % 2147483647;
    let rest = (distances.reduce((sum, distance) => sum + distance) * seed) / 2147483647;
    pick = distances.findIndex((distance) => (rest -= distance) < 0); // -1: there are fewer colours than k
  }
  for (let round = 0; round < 10; round++) {
    const sums = colors.map(() => [0, 0, 0, 0]);
    for (const s of samples) {
      const sum = sums[nearest(colors, s[0], s[1], s[2])];
      for (let c = 0; c < 3; c++) sum[c] += s[c];
      sum[3]++;
    }
    colors = sums.map((sum, c) => (sum[3] ? sum.slice(0, 3).map((total) => total / sum[3]) : colors[c]));
  }
  return colors.map((color) => color.map(Math.round));
}

/** The picture in k colours -> { image, colors: [{ color, share }] }, the most frequent first. */
function reduce({ data, width, height }) {
  const colors = kmeans(data, Number($("#k").value));
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const packed = colors.map(([r, g, b]) => (0xff << 24) | (b << 16) | (g << 8) | r);
  const counts = colors.map(() => 0);
  const cells = new Int16Array(2 ** 18).fill(-1); // the nearest colour in each 6-bit cell, found when it is first met
  for (let i = 0, j = 0; i < pixels.length; i++, j += 4) {
    const cell = ((data[j] >> 2) << 12) | ((data[j + 1] >> 2) << 6) | (data[j + 2] >> 2);
    if (cells[cell] < 0) cells[cell] = nearest(colors, data[j], data[j + 1], data[j + 2]);
    counts[cells[cell]]++;
    pixels[i] = packed[cells[cell]];
  }
  const shares = colors.map((color, c) => ({ color: `rgb(${color})`, share: counts[c] / (width * height) }));
  return { image, colors: shares.filter(({ share }) => share).sort((a, b) => b.share - a.share) };
}

// ---- what is shown ----------------------------------------------------------------------------------------------------

/** The image of an answer's label map in the view "overlay", "masks" or "confidence". */
function paint({ labels, confidence }, { data, width }, view) {
  const image = new ImageData(new Uint8ClampedArray(data), width);
  const weights = about.palette.map((_, label) => (view === "masks" ? 256 : about.unpainted.includes(label) ? 0 : Math.round(256 * about.opacity)));
  for (let i = 0; i < labels.length; i++) {
    const [color, weight] = [about.palette[labels[i]], weights[labels[i]]];
    for (let j = 4 * i, c = 0; c < 3; j++, c++) {
      image.data[j] = view === "confidence" ? 255 * confidence[i] : (data[j] * (256 - weight) + color[c] * weight + 128) >> 8;
    }
  }
  return image;
}

function draw() {
  if (!shown) return;
  const { image, colors } = reduce(shown.picture);
  const [view, count] = [$("[name=view]:checked").value, `${colors.length} colour${colors.length > 1 ? "s" : ""}`];
  const sides = view === "colours" ? [shown.picture, image] : [0, 1].map((side) => (shown.answers ? paint(shown.answers[side], shown.image, view) : shown.picture));
  sides.forEach((side, i) => {
    Object.assign(canvases[i], { width: side.width, height: side.height });
    canvases[i].getContext("2d").putImageData(side, 0, 0);
    titles[i].textContent = (view === "colours" ? ["the picture", count] : names)[i];
  });
  $("#picture").style.setProperty("--ratio", image.width / image.height);
  $("output").textContent = count;
  const swatches = colors.map(({ color, share }) => ({ title: `${color}, ${percent(share)}`, style: `flex: ${share}; background: ${color}` }));
  $("#strip").ariaLabel = swatches.map(({ title }) => title).join("; ");
  $("#strip").replaceChildren(...swatches.map((swatch) => element("i", "", swatch)));
}

/** Say how far both agree, and what share of the picture each gives to each class. */
function tell() {
  const [left, right] = shown.answers.map(({ labels }) => labels);
  const same = left.filter((label, i) => label === right[i]).length / left.length;
  $("#agreement").replaceChildren("Both say the same for ", element("b", percent(same)), " of the pixels.");
  const counts = [left, right].map((labels) => labels.reduce((counts, label) => (counts[label]++, counts), about.palette.map(() => 0)));
  const rows = about.class_names.map((name, label) => {
    const shares = counts.map((side) => side[label] / left.length);
    const head = element("th", name, { scope: "row" }, element("i", "", { style: `background: rgb(${about.palette[label]})` }));
    const cells = shares.map((share) => element("td", percent(share), { style: `--share: ${100 * share}%` }));
    return element("tr", "", { class: Math.max(...shares) ? "" : "absent" }, head, ...cells);
  });
  $("tbody").replaceChildren(...rows);
}

$("#split").onpointermove = ({ offsetX, offsetY, target }) => {
  if (!shown?.answers) return;
  const { width, height } = shown.image;
  const [x, y] = [(offsetX / target.clientWidth) * width, (offsetY / target.clientHeight) * height].map(Math.floor);
  if (x < 0 || y < 0 || x >= width || y >= height) return; // dragged beyond the picture
  const at = y * width + x;
  const said = shown.answers.map(({ labels, confidence }, side) => `${names[side]}: ${about.class_names[labels[at]]}, ${percent(confidence[at])} sure`);
  $("#readout").textContent = said.join(" · ");
};

// ---- controls ---------------------------------------------------------------------------------------------------------

$("#choose").onclick = () => $("#file").click();
$("#file").onchange = ({ target }) => open(target.files[0]).then(() => (target.value = ""));
$("#camera").onclick = live;
$("#split").oninput = ({ target }) => $("#picture").style.setProperty("--split", `${target.value}%`);
$("fieldset").onchange = draw;
$("#reduced").onchange = () => picture && ask();
$("#k").onchange = () => picture && $("#reduced").checked && ask();
$("#k").oninput = () => {
  $("[value=colours]").checked = true;
  draw();
};
addEventListener("paste", (event) => open(event.clipboardData.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") open(event.dataTransfer.files[0]);
  });
}

const heads = about.networks.map(({ name, facts }) => element("th", "", { scope: "col" }, element("b", name), element("small", facts)));
$("thead tr").append(element("th", about.task, { scope: "col" }), ...heads);
$("footer p").textContent = about.terms;
const examples = about.examples.map((path) => element("button", "", { "aria-label": `Example ${path.split("/").pop()}` }, element("img", "", { src: path, alt: "" })));
examples.forEach((button, i) => (button.onclick = () => open(fetch(about.examples[i]).then((file) => file.blob()))));
$("#examples").append(...examples);
examples.length ? examples[0].click() : say("Choose, drop or paste a picture.");
