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

const down = new Map(); // pointers that touch -> where they are
let origin = null; // where the first went down, until it has moved
let dragged = null; // the pointer that holds the divider's knob

stage.addEventListener("pointerdown", (event) => {
  if (!answer || event.button > 0 || event.target.closest("button")) return;
  stage.setPointerCapture(event.pointerId);
  down.set(event.pointerId, place2d(event));
  origin = down.size === 1 ? place2d(event) : null;
  if (event.target.closest(".divider")) [dragged, origin] = [event.pointerId, null];
  if (down.size === 2) dragged = null; // two fingers zoom, wherever they begin
});

stage.addEventListener("pointermove", (event) => {
  if (!answer) return;
  const [x, y] = place2d(event);
  if (!down.has(event.pointerId)) {
    if (event.pointerType !== "mouse") return;
    pointed = event.target === canvas ? pixelAt(x, y) : null;
    draw();
    return;
  }
  const [beforeX, beforeY] = down.get(event.pointerId);
  down.set(event.pointerId, [x, y]);
  if (down.size === 2) {
    const [[otherX, otherY]] = [...down].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const spread = (px, py) => Math.max(1, Math.hypot(px - otherX, py - otherY));
    zoom(spread(x, y) / spread(beforeX, beforeY), (x + otherX) / 2, (y + otherY) / 2);
    pan((x - beforeX) / 2, (y - beforeY) / 2);
  } else if (dragged === event.pointerId) {
    splitAt(x);
  } else if (down.size === 1) {
    if (origin && Math.hypot(x - origin[0], y - origin[1]) < CLICK) return;
    origin = pointed = null;
    if (gaze.zoom > 1) pan(x - beforeX, y - beforeY);
    // A finger that scrolls the page past the picture leaves the divider where it is.
    else if (look.layout === "curtain" && event.pointerType === "mouse") splitAt(x);
  }
});

function released(event) {
  if (down.delete(event.pointerId) && origin && event.type === "pointerup") {
    pinned = pixelAt(...origin);
    draw();
    speak();
  }
  if (dragged === event.pointerId) dragged = null;
  origin = null;
}

stage.addEventListener("pointerup", released);
stage.addEventListener("pointercancel", released);
stage.addEventListener("pointerleave", () => {
  pointed = null;
  draw();
});
stage.addEventListener("dblclick", (event) => {
  if (event.target.closest("button")) return;
  if (!event.target.closest(".divider")) return reset();
  look.split = 0.5;
  draw();
});
canvas.addEventListener("wheel", turnWheel, { passive: false });
canvas.addEventListener("keydown", pressKey);
find(".divider").addEventListener("keydown", slide);

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

/** Look at the answer in another way, as the segments do. */
function choose(what, value) {
  look[what] = value;
  if (!answer) return;
  describe();
  draw();
}

for (const what of ["view", "layout"]) {
  find(`.${what}s`).addEventListener("change", (event) => choose(what, event.target.value));
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
find(".badge button").addEventListener("click", () => trigger("all_colours"));
find(".waiting button").addEventListener("click", () => trigger("again"));

// Made when it opens, and not while it is open: a button that is replaced between press and release does nothing.
find(".save").addEventListener("toggle", ({ target }) => {
  target.querySelector("div").replaceChildren(...(target.open ? menu() : []));
});

document.addEventListener("click", (event) => {
  const save = find(".save");
  if (save.open && !save.contains(event.target)) save.open = false;
  const button = event.target.closest?.("#legend button");
  if (!button || !answer) return;
  if (button.dataset.all !== undefined) {
    look.hidden.clear();
    forgetInk();
  } else if (answer.classes[button.dataset.class]) {
    toggle(Number(button.dataset.class), event.shiftKey);
  }
});

new ResizeObserver(draw).observe(stage);
const outside = { childList: true, subtree: true };
new MutationObserver(markLegend).observe(document.getElementById("legend"), outside);
const tracker = element.closest("#viewer").querySelector("[data-testid=status-tracker]");
new MutationObserver(mind).observe(tracker, { ...outside, attributes: true, characterData: true });
watch("value", () => show(props.value));

/** For tests and the curious: how it is looked at, and where each pane draws the picture, in CSS pixels. */
function state() {
  const { width, height } = answer;
  const placed = panes().map((pane) => ({ ...pane, ...place(pane) }));
  return { ...look, ...gaze, hidden: [...look.hidden], width, height, panes: placed };
}

window.unetViewer = { paint, choose, state };
