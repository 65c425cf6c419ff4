// The viewer: one picture and what two networks see in it, drawn and read in the browser. The server hands an answer over
// once, see `hand_over` in app.py; every view, zoom and read-out after that is made here, of exactly those label maps.
window.unetViewer = (() => {
  "use strict";

  const VOID = 255; // in a ground truth: pixels that count for nobody
  const FOG = "rgb(236 236 236 / 72%)"; // where there is nothing to tell, over the picture in grey
  const VOID_GREY = 0xff808080;
  // Sure to unsure; the lightness grows evenly, so that it reads in grey and for colour-blind eyes (after "cividis",
  // Nuñez, Anderton, Renslow 2018).
  const DOUBT = [[0, 24, 62], [33, 55, 108], [84, 89, 109], [124, 123, 120], [170, 160, 116], [217, 200, 96], [255, 233, 69]];
  // Who is wrong: in the colours of the two sides, and dark for both.
  const WRONG = [[43, 108, 176], [240, 140, 30], [45, 20, 50]];
  const CRISP = 3; // screen pixels a picture's pixel, from which on it is drawn as a square
  const CLOSEST = 48; // CSS pixels a picture's pixel, at most
  const STEP = 1.4; // of the zoom
  const CLICK = 5; // CSS pixels that a finger may move and still mean one place

  const KEYS = {
    Overlay: "Each network’s classes over the picture.",
    Masks: "Each network’s classes alone.",
    Outline: "Where each network draws the borders of its classes.",
    Disagreement: "Fog where they agree; elsewhere what each of them says.",
    Errors: "Fog where a network is right; elsewhere what it says instead. Grey stripes do not count.",
  };
  const DIFFERENCE = { curtain: "", grid: " Stripes: both classes." };

  const look = { view: "Overlay", layout: "curtain", opacity: 0.55, patterns: false, hidden: new Set(), split: 0.5 };
  const gaze = { zoom: 1, x: 0.5, y: 0.5 }; // how much closer than all of it, and the fraction of the picture in the middle
  let answer = null; // what is shown
  let latest = 0; // of the answers asked for; older ones that arrive later are dropped
  let shown = 0; // answers so far
  let layers = new Map(); // drawings of the answer at its own size, made when first looked at
  let pointed = null; // the pixel under the mouse
  let pinned = null; // the pixel clicked on, or under the keyboard's cursor
  let steering = false; // whether arrow keys move the cursor rather than the picture
  let root, stage, canvas;

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const find = (selector) => root.querySelector(selector);

  // ---- an answer arrives ---------------------------------------------------------------------------------------------

  /** files: what `hand_over` wrote, as Gradio names them: facts, label maps and confidences, the picture. */
  async function show(files) {
    if (!files?.length) return;
    const mine = ++latest;
    attach();
    const [facts, planes, picture] = await Promise.all([
      fetched(files[0].url).then((response) => response.json()),
      fetched(files[1].url).then(inflated),
      decoded(files[2].url),
    ]).catch(() => []);
    if (mine !== latest) return;
    if (!facts) return hint("This answer did not arrive: click the example, or drop the picture, again.", 10_000);
    const [height, width] = facts.size;
    const plane = (i) => planes.subarray(i * width * height, (i + 1) * width * height);
    const before = answer;
    answer = {
      ...facts, width, height, picture, labels: [plane(0), plane(1)], confidences: [plane(2), plane(3)],
      truth: facts.truth ? plane(4) : null,
    };
    layers = new Map();
    if (before?.picture_key !== answer.picture_key) {
      Object.assign(gaze, { zoom: 1, x: 0.5, y: 0.5 });
      pointed = pinned = null;
    }
    const names = JSON.stringify(facts.classes);
    if (!before || JSON.stringify(before.classes) !== names) look.hidden.clear();
    describe();
    draw();
    root.dataset.answer = ++shown; // tests wait for it
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
      (i, x, y) => (truth[i] === VOID ? stripe(x, y) && VOID_GREY : color(labels[i], x, y)),
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
        if (truth[i] === VOID) return stripe(x, y) && VOID_GREY;
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

  /** Draw a pane's picture with its corner at the pen's origin and one unit a pixel. */
  function paint(pen, pane) {
    pen.drawImage(answer.picture, 0, 0);
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
    const [half, low] = [(w - gap) / 2, (h - gap) / 2];
    return ["left", "right", "picture", "difference"].map((name, i) => {
      return { name, x: (i % 2) * (half + gap), y: (i >> 1) * (low + gap), w: half, h: low };
    });
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
      paint(pen, pane.name);
      markCursor(pen, scale);
      pen.restore();
    }
    placeDivider(edge);
    find('[data-do="reset"] output').textContent = `${Math.round(100 * gaze.zoom)} %`;
    canvas.style.touchAction = gaze.zoom > 1 ? "none" : "pan-y"; // a thumb that scrolls the page gets past the picture
    readOut();
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
    divider.setAttribute("aria-valuetext", `${percent} % ${answer.sides[0]}, ${100 - percent} % ${answer.sides[1]}`);
  }

  // ---- words beside it -------------------------------------------------------------------------------------------------

  /** Everything around the pictures that depends on the answer or on how it is looked at. */
  function describe() {
    const hasTruth = Boolean(answer.truth);
    if (look.view === "Errors" && !hasTruth) look.view = "Overlay";
    const errorsChoice = find('input[value="Errors"]');
    errorsChoice.disabled = !hasTruth;
    errorsChoice.parentElement.title = hasTruth ? "" : "Needs a ground truth";
    find(`input[value="${look.view}"]`).checked = true;
    find(`input[value="${look.layout}"]`).checked = true;
    root.dataset.layout = look.layout;
    root.dataset.view = look.view;

    const opacity = find(".opacity input");
    opacity.disabled = look.view !== "Overlay";
    find(".opacity output").textContent = `${opacity.value} %`;

    const below = look.view === "Errors" ? ["ground truth", "who is wrong"] : ["picture", "where they differ"];
    const titles = [...answer.sides, ...below];
    find(".titles").childNodes.forEach((title, i) => (title.textContent = titles[i]));
    find(".divider").setAttribute("aria-label", `Divider: ${answer.sides[0]} left of it, ${answer.sides[1]} right of it`);
    find(".view-key").replaceChildren(...key());

    find(".save div").replaceChildren(
      ...answer.sides.flatMap((side, i) => [
        menuItem(`${side}, ${look.view.toLowerCase()}`, `${answer.width} × ${answer.height}`, () => save(i)),
        menuItem(`${side}, label map`, [...answer.full_size].reverse().join(" × "), () => {
          document.getElementById(`save-labels-${"ab"[i]}`)?.click();
        }),
      ]),
    );
    markLegend();
  }

  function key() {
    if (look.view === "Confidence") {
      const ramp = element("i");
      ramp.style.background = `linear-gradient(90deg, ${DOUBT.map((c) => `rgb(${c})`)})`;
      const guess = `a guess, ${Math.round(100 / answer.classes.length)} %`;
      return [element("span", "sure, 100 %"), ramp, element("span", guess)];
    }
    if (look.view === "Errors" && look.layout === "grid") {
      const who = [`${answer.sides[0]} alone`, `${answer.sides[1]} alone`, "both"];
      return who.flatMap((text, i) => {
        const dot = element("b");
        dot.style.background = `rgb(${WRONG[i]})`;
        return [dot, element("span", text)];
      });
    }
    const extra = look.view === "Disagreement" ? DIFFERENCE[look.layout] : "";
    return [element("span", KEYS[look.view] + extra)];
  }

  function element(name, text = "") {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  function menuItem(what, size, action) {
    const item = element("button", what);
    item.type = "button";
    item.append(element("small", `PNG, ${size}`));
    item.addEventListener("click", () => {
      find(".save").open = false;
      action();
    });
    return item;
  }

  /** A side as it is drawn now, pixel by pixel of the picture. */
  function save(side) {
    const sheet = blank();
    paint(sheet.getContext("2d"), ["left", "right"][side]);
    sheet.toBlob((png) => {
      const link = element("a");
      link.href = URL.createObjectURL(png);
      link.download = `${answer.sides[side]}-${look.view.toLowerCase()}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  }

  // The legend comes from the server with every answer; which classes are seen is known here.
  function markLegend() {
    const legend = document.getElementById("legend");
    if (!legend || !answer) return;
    for (const button of legend.querySelectorAll("button[data-class]")) {
      const index = Number(button.dataset.class);
      const seen = !look.hidden.has(answer.classes[index]?.name);
      button.setAttribute("aria-pressed", seen);
      const swatch = button.querySelector(".swatch");
      swatch.style.backgroundImage = look.patterns ? `url(${patternOf(index)})` : "";
    }
    const all = legend.querySelector("button[data-all]");
    if (all) all.hidden = look.hidden.size === 0;
  }

  function patternOf(index) {
    const { color } = answer.classes[index] ?? {};
    if (!color) return "";
    const swatch = document.createElement("canvas");
    swatch.width = swatch.height = 28;
    const pen = swatch.getContext("2d");
    pen.fillStyle = `rgb(${color})`;
    pen.fillRect(0, 0, 28, 28);
    pen.fillStyle = luma(color) > 90 ? "rgb(0 0 0 / 55%)" : "rgb(255 255 255 / 43%)";
    for (let y = 0; y < 28; y++) for (let x = 0; x < 28; x++) if (onStroke(index, x, y, 12)) pen.fillRect(x, y, 1, 1);
    return swatch.toDataURL();
  }

  function toggle(index, alone) {
    const { name } = answer.classes[index];
    const others = answer.classes.map((c) => c.name).filter((other) => other !== name);
    if (alone) look.hidden = new Set(others);
    else if (!look.hidden.delete(name)) look.hidden.add(name);
    forgetInk();
  }

  function forgetInk() {
    const kept = layers.get("fog");
    layers = new Map(kept ? [["fog", kept]] : []);
    markLegend();
    draw();
  }

  /** Both networks' words on the pixel pointed at, else on the one that was clicked. */
  function readOut() {
    const at = pointed ?? pinned;
    const line = find(".readout");
    line.classList.toggle("empty", !at);
    if (!at) {
      find(".where").textContent = "Point at the picture, or click it, to see what each network says there.";
      return;
    }
    const i = at.y * answer.width + at.x;
    find(".where").textContent = `x ${at.x}, y ${at.y}`;
    answer.sides.forEach((side, s) => {
      say(`.said.side-${"ab"[s]}`, answer.labels[s][i], `${side}: `, `, ${certainty(answer.confidences[s][i])}`);
    });
    const truth = find(".said.truth");
    truth.hidden = !answer.truth;
    if (answer.truth) say(".said.truth", answer.truth[i], "truth: ", "");
  }

  function say(selector, label, before, after) {
    const said = find(selector);
    const { name, color, painted } = answer.classes[label] ?? { name: "void", color: [128, 128, 128], painted: false };
    const [swatch, text] = said.children;
    swatch.style.background = painted ? `rgb(${color})` : "";
    text.replaceChildren(before, element("b", name), after);
  }

  function certainty(level) {
    return level > 253 ? "> 99 %" : `${Math.round((100 * level) / 255)} %`;
  }

  /** For those who listen: what a click or the keyboard's cursor found. */
  function speak() {
    readOut();
    find("[aria-live]").textContent = find(".readout").innerText.replace(/\s+/g, " ");
  }

  // ---- hands -------------------------------------------------------------------------------------------------------------

  /** The pixel of the picture at a place of the stage, or null beside it. */
  function pixelAt(x, y) {
    const pane = panes().find((p) => x >= p.x && x < p.x + p.w && y >= p.y && y < p.y + p.h);
    if (!pane) return null;
    const { left, top, scale } = place(pane);
    const pixel = { x: Math.floor((x - left) / scale), y: Math.floor((y - top) / scale) };
    return pixel.x >= 0 && pixel.y >= 0 && pixel.x < answer.width && pixel.y < answer.height ? pixel : null;
  }

  /** Zoom about a place of the stage, which stays where it is; by default the middle. */
  function zoom(factor, x, y) {
    const pane = panes().find((p) => x >= p.x && x < p.x + p.w && y >= p.y && y < p.y + p.h) ?? panes()[0];
    const [dx, dy] = x === undefined ? [0, 0] : [x - pane.x - pane.w / 2, y - pane.y - pane.h / 2];
    const before = fit(pane) * gaze.zoom;
    gaze.zoom = clamp(gaze.zoom * factor, 1, closest(pane));
    const after = fit(pane) * gaze.zoom;
    gaze.x += (dx / before - dx / after) / answer.width;
    gaze.y += (dy / before - dy / after) / answer.height;
    draw();
  }

  /** Move the picture under the panes, in CSS pixels. */
  function pan(dx, dy) {
    const { scale } = place(panes()[0]);
    gaze.x -= dx / (scale * answer.width);
    gaze.y -= dy / (scale * answer.height);
    draw();
  }

  function reset() {
    Object.assign(gaze, { zoom: 1, x: 0.5, y: 0.5 });
    draw();
  }

  function splitAt(x) {
    const [from, to] = curtainSpan();
    look.split = clamp((x - from) / (to - from), 0, 1);
    draw();
  }

  function fullscreen() {
    const whole = root.closest("#answer") ?? root;
    if (document.fullscreenElement) document.exitFullscreen();
    else whole.requestFullscreen();
  }

  const place2d = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function followPointers() {
    const down = new Map(); // pointers that touch -> where they are
    let origin = null; // where the first went down, until it has moved

    canvas.addEventListener("pointerdown", (event) => {
      if (!answer || event.button > 0) return;
      canvas.setPointerCapture(event.pointerId);
      down.set(event.pointerId, place2d(event));
      origin = down.size === 1 ? place2d(event) : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!answer) return;
      const [x, y] = place2d(event);
      if (!down.has(event.pointerId)) {
        if (event.pointerType !== "mouse") return;
        pointed = pixelAt(x, y);
        draw();
        return;
      }
      const [beforeX, beforeY] = down.get(event.pointerId);
      if (down.size === 2) {
        const [[otherX, otherY]] = [...down].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        const spread = (px, py) => Math.max(1, Math.hypot(px - otherX, py - otherY));
        zoom(spread(x, y) / spread(beforeX, beforeY), (x + otherX) / 2, (y + otherY) / 2);
        pan((x - beforeX) / 2, (y - beforeY) / 2);
      } else if (down.size === 1) {
        if (origin && Math.hypot(x - origin[0], y - origin[1]) < CLICK) return;
        origin = null;
        pointed = null;
        if (gaze.zoom > 1) pan(x - beforeX, y - beforeY);
        else if (look.layout === "curtain") splitAt(x);
      }
      down.set(event.pointerId, [x, y]);
    });
    const released = (event) => {
      if (down.delete(event.pointerId) && origin && event.type === "pointerup") {
        pinned = pixelAt(...origin);
        draw();
        speak();
      }
      origin = null;
    };
    canvas.addEventListener("pointerup", released);
    canvas.addEventListener("pointercancel", released);
    canvas.addEventListener("pointerleave", () => {
      pointed = null;
      draw();
    });
    canvas.addEventListener("dblclick", reset);
    canvas.addEventListener("wheel", turnWheel, { passive: false });

    const divider = find(".divider");
    divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", (event) => {
      if (answer && divider.hasPointerCapture(event.pointerId)) splitAt(place2d(event)[0]);
    });
    divider.addEventListener("dblclick", () => {
      look.split = 0.5;
      draw();
    });
  }

  // The page scrolls past the picture, until somebody means the picture: has clicked it, is close already, or holds Ctrl.
  function turnWheel(event) {
    const meant = event.ctrlKey || event.metaKey || gaze.zoom > 1 || document.activeElement === canvas;
    if (!answer || !meant) return hint("Click the picture first, or hold Ctrl, to zoom with the wheel");
    if (gaze.zoom === 1 && event.deltaY > 0 && !event.ctrlKey) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoom(Math.exp(-clamp(event.deltaY * lines, -120, 120) * (event.ctrlKey ? 0.01 : 0.0025)), ...place2d(event));
  }

  let hintTimer;
  function hint(text, milliseconds = 1500) {
    const line = find(".hint");
    line.textContent = text;
    line.classList.add("seen");
    clearTimeout(hintTimer);
    hintTimer = setTimeout(() => line.classList.remove("seen"), milliseconds);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function pressKey(event) {
    if (!answer || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    const act = {
      "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: reset,
      c: () => steer(!steering), Escape: () => steer(false),
    }[event.key];
    if (arrow && steering) moveCursor(arrow, event.shiftKey ? 10 : 1);
    else if (arrow) pan(-60 * arrow[0], -60 * arrow[1]);
    else if (act && !(event.key === "Escape" && !steering)) act();
    else return;
    event.preventDefault();
  }

  function steer(on) {
    steering = on;
    pointed = null;
    pinned = on ? pinned ?? { x: Math.floor(gaze.x * answer.width), y: Math.floor(gaze.y * answer.height) } : null;
    draw();
    if (on) speak();
  }

  function moveCursor([dx, dy], step) {
    pinned = {
      x: clamp(pinned.x + dx * step, 0, answer.width - 1),
      y: clamp(pinned.y + dy * step, 0, answer.height - 1),
    };
    // The picture follows, so that the cursor stays in sight.
    const [pane] = panes();
    const { scale } = place(pane);
    for (const [axis, size, length] of [["x", answer.width, pane.w], ["y", answer.height, pane.h]]) {
      const reach = Math.max(0, (0.5 * length) / (scale * size) - 1 / size);
      gaze[axis] = clamp(gaze[axis], (pinned[axis] + 0.5) / size - reach, (pinned[axis] + 0.5) / size + reach);
    }
    draw();
    speak();
  }

  function slide(event) {
    const step = { ArrowLeft: -2, ArrowRight: 2, ArrowDown: -2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 }[event.key];
    if (!step || !answer) return;
    event.preventDefault();
    look.split = clamp(look.split + step / 100, 0, 1);
    draw();
  }

  /** Take hold of the page's elements; again should Gradio have made new ones. */
  function attach() {
    const now = document.querySelector("#viewer .viewer");
    if (now === root) return;
    root = now;
    [stage, canvas] = [find(".stage"), find("canvas")];
    followPointers();
    canvas.addEventListener("keydown", pressKey);
    find(".divider").addEventListener("keydown", slide);
    for (const choice of ["view", "layout"]) {
      find(`.${choice}s`).addEventListener("change", (event) => {
        look[choice] = event.target.value;
        describe();
        draw();
      });
    }
    find(".opacity input").addEventListener("input", (event) => {
      look.opacity = event.target.value / 100;
      find(".opacity output").textContent = `${event.target.value} %`;
      draw();
    });
    find(".patterns input").addEventListener("change", (event) => {
      look.patterns = event.target.checked;
      forgetInk();
    });
    const actions = { in: () => zoom(STEP), out: () => zoom(1 / STEP), reset, fullscreen };
    find(".tools").addEventListener("click", (event) => {
      if (answer) actions[event.target.closest("[data-do]")?.dataset.do]?.();
    });
    find('[data-do="fullscreen"]').hidden = !document.fullscreenEnabled;
    new ResizeObserver(draw).observe(stage);
    const legend = document.getElementById("legend");
    if (legend) new MutationObserver(markLegend).observe(legend, { childList: true, subtree: true });
  }

  document.addEventListener("click", (event) => {
    const save = root?.querySelector(".save");
    if (save?.open && !save.contains(event.target)) save.open = false;
    const button = event.target.closest?.("#legend button");
    if (!button || !answer) return;
    if (button.dataset.all !== undefined) {
      look.hidden.clear();
      forgetInk();
    } else if (answer.classes[button.dataset.class]) {
      toggle(Number(button.dataset.class), event.shiftKey);
    }
  });

  /** For tests and the curious: how it is looked at, and where each pane draws the picture, in CSS pixels. */
  function state() {
    const { width, height } = answer;
    const placed = panes().map((pane) => ({ ...pane, ...place(pane) }));
    return { ...look, ...gaze, hidden: [...look.hidden], width, height, panes: placed };
  }

  return { show, state };
})();
